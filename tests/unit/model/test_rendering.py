import msgspec
import pytest

from coordinator.engine.evaluation import render_subjob, render_task
from shared.model.language import Each, SubJob, TaskDefinition
from tests.unit.model.reading import job_of

SCRIPT = "{{ left }}"


def render(template: str) -> str:
    return template.replace("{{", "<").replace("}}", ">")


def first_task(fields: str) -> TaskDefinition:
    return job_of(f"{{name: j, tasks: [{fields}]}}").tasks[0]


def test_every_template_of_a_task_is_rendered_and_nothing_else() -> None:
    small = (
        "name: '{{n}}', description: '{{d}}', image: '{{i}}', run: '{{r}}', cmd: ['{{c}}', plain], "
        "entrypoint: ['{{e}}'], env: {A: '{{a}}', B: b}, "
        "files: {f: '{{f}}', g: {template: '{{g}}'}, h: {template: plain}}, "
        "registry: {username: '{{u}}', password: '{{p}}'}"
    )
    task = first_task(
        f"{{{small}, var: '{{{{v}}}}', queue: '{{{{q}}}}', "
        "if: '{{ true }}', workdir: '/{{w}}', "
        "tags: ['{{t}}'], networks: ['{{n}}'], "
        "mounts: [{type: bind, source: '/{{s}}', target: '/{{t}}', opts: {readonly: '{{o}}'}}], "
        f"pre: [{{{small}}}], post: [{{{small}}}], "
        f"sidecars: [{{{small}, probe: {{path: '/{{{{p}}}}'}}}}]}}"
    )
    rendered_small = {
        "name": "<n>",
        "description": "{{d}}",
        "image": "<i>",
        "run": "{{r}}",
        "cmd": ["<c>", "plain"],
        "entrypoint": ["{{e}}"],
        "env": {"A": "<a>", "B": "b"},
        "files": {"f": "{{f}}", "g": "<g>", "h": "plain"},
        "registry": {"username": "<u>", "password": "<p>"},
    }
    assert msgspec.to_builtins(render_task(task, render)) == {
        **rendered_small,
        "var": "<v>",
        "queue": "<q>",
        "if": "{{ true }}",
        "workdir": "/{{w}}",
        "tags": ["{{t}}"],
        "networks": ["{{n}}"],
        "mounts": [
            {"type": "bind", "source": "/{{s}}", "target": "/{{t}}", "opts": {"readonly": "{{o}}"}}
        ],
        "pre": [rendered_small],
        "post": [rendered_small],
        "sidecars": [{**rendered_small, "probe": {"path": "/{{p}}"}}],
    }


def test_a_task_without_templates_is_itself() -> None:
    task = first_task("{name: t, run: '{{ r }}', env: {A: b}}")
    assert render_task(task, render) == task


def test_the_tasks_inside_a_composite_wait_for_their_turn() -> None:
    inner = "{name: '{{n}}', run: x}"
    for composite in (
        f"parallel: {{tasks: [{inner}]}}",
        f"each: {{list: '{{{{ [1] }}}}', task: {inner}}}",
        f"subjob: {{name: '{{{{s}}}}', inputs: {{a: '{{{{a}}}}'}}, tasks: [{inner}]}}",
    ):
        task = first_task(f"{{name: '{{{{t}}}}', {composite}}}")
        assert render_task(task, render) == msgspec.structs.replace(task, name="<t>")


def test_a_sub_job_is_rendered_where_its_parent_gives_it_data() -> None:
    subjob = first_task(
        "{name: t, subjob: {name: '{{n}}', description: '{{d}}', detached: true, "
        "inputs: {a: '{{a}}'}, secrets: {b: '{{b}}'}, output: '{{o}}', defaults: {queue: '{{q}}'}, "
        "webhooks: [{url: '{{u}}', headers: {H: '{{h}}'}, if: '{{ true }}', secret: '{{k}}'}], "
        "tasks: [{name: '{{t}}', run: x}]}}"
    ).subjob
    assert subjob is not None
    assert msgspec.to_builtins(render_subjob(subjob, render)) == {
        "name": "<n>",
        "description": "{{d}}",
        "inputs": {"a": "<a>"},
        "secrets": {"b": "<b>"},
        "output": "{{o}}",
        "defaults": {"queue": "{{q}}"},
        "webhooks": [
            {"url": "<u>", "headers": {"H": "<h>"}, "if": "{{ true }}", "secret": "{{k}}"}
        ],
        "tasks": [{"name": "{{t}}", "run": "x"}],
    }


def test_an_error_says_where() -> None:
    def fail(template: str) -> str:
        raise ValueError(template)

    with pytest.raises(ValueError, match="a") as caught:
        render_task(TaskDefinition(pre=[TaskDefinition(run="x", env={"A": "{{ a }}"})]), fail)
    assert caught.value.__notes__ == ["pre.0.env.A"]


def test_templates_are_not_rendered_twice() -> None:
    task = TaskDefinition(env={"A": "{{ a }}"})
    assert render_task(task, lambda _: "{{ b }}").env == {"A": "{{ b }}"}


def test_the_original_is_left_alone() -> None:
    task = TaskDefinition(name="{{ n }}", cmd=["{{ c }}"], each=Each(list="[1]"), subjob=SubJob())
    before = msgspec.json.encode(task)
    render_task(task, render)
    assert msgspec.json.encode(task) == before
