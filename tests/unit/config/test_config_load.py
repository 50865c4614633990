"""Where values come from, and which one wins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from shared.config import Config, ConfigurationError, Loaded, Override, load
from shared.config.flat_settings import settings
from shared.config.sources import LARGEST_FILE, NOT_SETTINGS


class Machine:
    """A machine of the test's own: folders, variables, four CPUs."""

    def __init__(self, root: Path) -> None:
        self.cwd, self.home = root / "work", root / "home"
        self.cwd.mkdir()
        self.home.mkdir()

    def write(self, text: str | bytes, path: Path | None = None) -> Path:
        path = path or self.cwd / "haulier.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def load(
        self,
        *sets: str,
        environ: Mapping[str, str] | None = None,
        file: str | None = None,
        role: str | None = None,
    ) -> Loaded:
        overrides = [Override("--set", *text.split("=", 1)) for text in sets]
        return load(overrides, environ or {}, self.cwd, self.home, file=file, role=role, cpus=4)

    def problems(
        self,
        *sets: str,
        environ: Mapping[str, str] | None = None,
        file: str | None = None,
        role: str | None = None,
    ) -> list[str]:
        with pytest.raises(ConfigurationError) as refused:
            self.load(*sets, environ=environ, file=file, role=role)
        return [str(problem) for problem in refused.value.problems]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_defaults_serve_a_laptop(machine: Machine) -> None:
    loaded = machine.load()
    config = loaded.config
    assert (config.broker.type, config.datastore.type) == ("memory", "sqlite")
    assert config.runtime.type == "docker"
    assert config.datastore.sqlite.path == f"{machine.home}/.local/share/haulier/haulier.db"
    assert config.worker.queues == {"default": 4}
    assert config.coordinator.address == "localhost:8000"
    assert config.worker.address == "localhost:8001"
    engine = config.engine
    assert (engine.beat, engine.lease, engine.sweep) == (5.0, 30.0, 5.0)
    assert (engine.reconnect_cap, engine.redeliveries, engine.job_window) == (10.0, 5, 1000)
    assert config.coordinator.middleware.body_limit == 500 * 1024
    assert set(loaded.origins.values()) == {"default"}
    assert (loaded.file, loaded.warnings) == (None, [])


def test_later_sources_win_and_origins_say_which(machine: Machine) -> None:
    file = machine.write('[engine]\nbeat = "1s"\nsweep = "2s"\nlease = "40s"\n')
    environ = {"HAULIER_ENGINE_BEAT": "2s", "HAULIER_ENGINE_SWEEP": "3s"}
    loaded = machine.load("engine.beat=3s", environ=environ)
    engine = loaded.config.engine
    assert (engine.beat, engine.sweep, engine.lease) == (3.0, 3.0, 40.0)
    assert loaded.origins["engine.beat"] == "flag --set"
    assert loaded.origins["engine.sweep"] == "environment HAULIER_ENGINE_SWEEP"
    assert loaded.origins["engine.lease"] == str(file)
    assert loaded.origins["engine.job_window"] == "default"
    assert loaded.file == file


def test_the_later_of_two_flags_wins(machine: Machine) -> None:
    assert machine.load("engine.beat=1s", "engine.beat=2s").config.engine.beat == 2.0


def test_the_first_file_of_the_usual_places_is_read(machine: Machine) -> None:
    at_home = machine.home / ".config" / "haulier" / "haulier.toml"
    machine.write('worker.name = "home"', at_home)
    assert machine.load().config.worker.name == "home"
    machine.write('worker.name = "here"')
    assert machine.load().config.worker.name == "here"
    other = machine.write('worker.name = "other"', machine.cwd / "sub" / "other.toml")
    for named in (str(other), "sub/other.toml"):
        assert machine.load(environ={"HAULIER_CONFIG": named}).config.worker.name == "other"
    named = "~/.config/haulier/haulier.toml"
    loaded = machine.load(environ={"HAULIER_CONFIG": str(other)}, file=named)
    assert loaded.config.worker.name == "home"


@pytest.mark.parametrize("path", [path for path, each in settings().items() if not each.is_map])
def test_each_setting_has_its_variable(machine: Machine, path: str) -> None:
    setting = settings()[path]
    text = SAMPLES.get(setting.path) or SAMPLES_BY_KIND.get(setting.kind) or "text"
    text = setting.choices[-1] if setting.choices else text
    variable = "HAULIER_" + setting.path.replace(".", "_").upper()
    needs = [f"{needed}={value}" for needed, value in NEEDED.get(setting.path, {}).items()]
    loaded = machine.load(*needs, environ={variable: text})
    assert loaded.origins[setting.path] == f"environment {variable}"
    assert loaded.warnings == []
    assert machine.load(*needs, f"{setting.path}={text}").config == loaded.config


SAMPLES_BY_KIND = {
    "bool": "true",
    "int": "7",
    "float": "7.5",
    "duration": "31s",
    "size": "2M",
    "address": "host:1",
    "amqp-url": "amqps://h/",
    "mongodb-url": "mongodb+srv://h/",
    "http-url": "https://h",
    "cpus": ".5",
    "memory": "512m",
    "aliases": "A,B:C",
    "paths": "/a,/b",
    "networks": "10.0.0.0/8,::1",
}
SAMPLES = {"engine.beat": "1s", "engine.expression_steps": "20000"}
NEEDED = {
    "encryption.old_keys": {"encryption.key": "k"},
    "coordinator.middleware.key_auth.enabled": {"coordinator.middleware.key_auth.key": "k"},
    "coordinator.middleware.basic_auth.username": {
        "coordinator.middleware.basic_auth.password": "p"
    },
    "coordinator.middleware.basic_auth.password": {
        "coordinator.middleware.basic_auth.username": "u"
    },
    "coordinator.middleware.cors.credentials": {"coordinator.middleware.cors.origins": "http://a"},
}


def test_no_two_settings_share_a_variable() -> None:
    variables = [setting.variable for setting in settings().values()]
    assert len(set(variables)) == len(variables)
    assert not NOT_SETTINGS & set(variables)
    for setting in settings().values():
        if setting.is_map:
            begins = setting.variable + "_"
            assert not [name for name in variables if name.startswith(begins)]


def test_queues_by_variable_are_lower_cased(machine: Machine) -> None:
    environ = {"HAULIER_WORKER_QUEUES_DEFAULT": "4", "HAULIER_WORKER_QUEUES_BIG_VIDEO": "2"}
    loaded = machine.load(environ=environ)
    assert loaded.config.worker.queues == {"default": 4, "big_video": 2}
    origins = {path: origin for path, origin in loaded.origins.items() if "queues." in path}
    assert origins["worker.queues.big_video"] == "environment HAULIER_WORKER_QUEUES_BIG_VIDEO"
    assert "worker.queues" not in loaded.origins


def test_queues_of_all_sources_come_together(machine: Machine) -> None:
    machine.write('[worker.queues]\n"Big Jobs" = 1\nvideo = 9\nold = 3\n')
    loaded = machine.load(
        "worker.queues.a.b-C=5", "worker.queues.old=0", environ={"HAULIER_WORKER_QUEUES_VIDEO": "2"}
    )
    assert loaded.config.worker.queues == {"Big Jobs": 1, "video": 2, "a.b-C": 5}


def test_an_unknown_variable_only_warns(machine: Machine) -> None:
    environ = {
        "HAULIER_ENGINE_BAET": "secret value",
        "HAULIER_WORKER_QUEUES": "default=4",
        "HAULIER_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "HAULIER_TASK_ID": "x",
        "HAULIER_OUTPUT": "/tork/stdout",
        "HAULIER_SERVER": "http://x",
        "OTHER_ENGINE_BEAT": "x",
        "haulier_engine_beat": "x",
    }
    warnings = machine.load(environ=environ).warnings
    assert len(warnings) == 3
    assert warnings[0].endswith("is ignored, did you mean HAULIER_ENGINE_BEAT?")
    assert warnings[1].startswith("environment HAULIER_PORT_8000_TCP is not a setting")
    assert "HAULIER_WORKER_QUEUES_<NAME>" in warnings[2]
    assert "secret" not in "".join(warnings)


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("engine.beat=soon", '"soon" is not a duration'),
        ("engine.beat=5", '"5" is not a duration'),
        ("engine.beat=-1s", "must not be negative"),
        ("engine.beat=1ms", "must be at least 100ms"),
        ("engine.beat=61s", "must be at most 1m"),
        ("engine.redeliveries=five", "must be a whole number"),
        ("engine.redeliveries=1.0", "must be a whole number"),
        ("engine.redeliveries=-1", "must be at least 0"),
        ("engine.redeliveries=" + "9" * 30, "must be a whole number"),
        ("engine.job_window=100001", "must be at most 100,000"),
        ("broker.type=rabbit", 'must be memory or rabbitmq, did you mean "rabbitmq"?'),
        ("datastore.type=postgres", "must be sqlite or mongodb"),
        ("logging.level=trace", "must be debug or info or warn or error"),
        ("runtime.docker.privileged=maybe", "must be true or false"),
        ("coordinator.address=8000", "must be host:port"),
        ("coordinator.address=localhost:http", "must be host:port"),
        ("coordinator.address=localhost:65536", "must be host:port"),
        ("coordinator.address=::1:8000", "IPv6 address in brackets"),
        ("coordinator.address=", "must not be empty"),
        ("broker.rabbitmq.url=", "must not be empty"),
        ("broker.rabbitmq.url=http://h", "must be a complete URL, amqp://… or amqps://…"),
        ("broker.rabbitmq.url=amqp://", "must be a complete URL"),
        ("broker.rabbitmq.url=amqp://h:99999/", "must be a complete URL"),
        ("datastore.mongodb.url=mongo", "must be a complete URL"),
        ("datastore.mongodb.database=a/b", "must be a valid MongoDB name"),
        ("coordinator.middleware.body_limit=lots", "must be a size, like 500K or 16M"),
        ("coordinator.middleware.body_limit=1", "must be at least 1K"),
        ("coordinator.middleware.rate_limit.rate=0", "must be more than 0"),
        ("coordinator.middleware.rate_limit.rate=1e3", "must be a number"),
        ("worker.limits.output=9M", "must be at most 8M"),
        ("worker.limits.cpus=many", "is not a number of CPUs"),
        ("worker.limits.memory=much", "is not an amount of memory"),
        ("worker.limits.cpus=0.001", "must be at least 0.01"),
        ("worker.limits.memory=1m", "must be at least 6m"),
        ("worker.limits.max.cpus=.001", "must be at least 0.01"),
        ("worker.limits.max.memory=6291455", "must be at least 6m"),
        ("worker.queues.default=some", "must be a whole number"),
        ("worker.queues.default=-1", "must be a number of slots"),
        ("worker.queues.default=10001", "must be a number of slots"),
        ("worker.queues.jobs=1", "is a queue of the engine's own"),
        ("worker.queues.x-1=1", "kept for the workers' own queues"),
        ("worker.hostenv=A,=B", "must be NAME, or NAME:ALIAS"),
        ("mounts.bind.sources=/a,b", '"b" must be an absolute path'),
        ("runtime.shell.uid=root", "must be a whole number"),
        ("runtime.shell.cmd=", "must name a command"),
    ],
)
def test_a_bad_value_says_key_value_and_what_is_allowed(
    machine: Machine, assignment: str, problem: str
) -> None:
    (said,) = machine.problems(assignment)
    path, _, value = assignment.partition("=")
    assert said.startswith(path)
    assert problem in said
    assert value in said
    assert "(flag --set)" in said


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("engine.baet", "did you mean engine.beat?"),
        ("drain_timeout", "did you mean worker.drain_timeout?"),
        ("brokr.type", "did you mean broker.type?"),
        ("coordinator.cors.enabled", "did you mean coordinator.middleware.cors.enabled?"),
        ("engine.zzz", "; engine holds beat, expression_bytes, expression_steps"),
        ("zzz", "; the top level holds broker, coordinator, datastore"),
        ("", "the top level holds"),
        (".", "the top level holds"),
        ("broker", "is a group of settings, not a setting: did you mean broker.type?"),
        ("engine", "is a group of settings, not a setting"),
        ("worker.queues", "needs one key at a time: worker.queues.NAME=VALUE"),
        ("engine.beat.x", "no such setting"),
    ],
)
def test_an_unknown_key_says_what_was_meant(machine: Machine, path: str, hint: str) -> None:
    (problem,) = machine.problems(f"{path}=value")
    assert problem.startswith(path)
    assert hint in problem


def test_all_faults_of_all_sources_at_once(machine: Machine) -> None:
    machine.write('[engine]\nbeat = 5\nbaet = "1s"\n[nonsense]\na = 1\n[worker]\nqueues = 4\n')
    problems = machine.problems("broker.type=x", environ={"HAULIER_LOGGING_LEVEL": "loud"})
    assert [problem.split(" (")[0] for problem in problems] == [
        "engine.beat = 5",
        'engine.baet = "1s"',
        "nonsense",
        "worker.queues = 4",
        'logging.level = "loud"',
        'broker.type = "x"',
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("engine = 3", "engine ({file}): is a group of settings, not a setting"),
        ('broker = "rabbitmq"', "did you mean broker.type?"),
        ("engine.redeliveries = true", "must be a whole number"),
        ("engine.redeliveries = 1.0", "must be a whole number"),
        ('engine.redeliveries = "5"', "must be a whole number"),
        ("engine.beat = 5", 'must be a duration in quotes, like "90s"'),
        ("coordinator.middleware.rate_limit.rate = nan", "must be a number"),
        ("coordinator.middleware.rate_limit.rate = inf", "must be at most 1,000,000"),
        ("worker.limits.cpus = inf", "is not a number of CPUs"),
        ("runtime.docker.init = 1", "must be true or false"),
        ("worker.name = 3", "must be a string in quotes"),
        ("worker.name = 2026-01-01", "must be a string in quotes"),
        ("worker.name = {a = 1}", "must be a string in quotes"),
        ('worker.hostenv = "A"', "must be a list of texts"),
        ("worker.hostenv = [1]", "must be a list of texts"),
        ('encryption.old_keys = ["a", " "]', "must not contain empty strings"),
        ("worker.queues = 4", "must be a table, like [worker.queues]"),
        ("[worker.queues.video]\nslots = 1", "must be a whole number"),
        ('"engine.beat" = "5s"', "no such setting"),
        ("engine.beat = ", "not valid TOML: "),
        ("[engine]\n[engine]\n", "not valid TOML: "),
        (b"worker.name = '\xff'", "not UTF-8 (at byte 15)"),
        (b"#" * (LARGEST_FILE + 1), "too large"),
        ("a = " + "[" * 5000, "not valid TOML"),
    ],
)
def test_a_bad_file(machine: Machine, text: str | bytes, problem: str) -> None:
    file = machine.write(text)
    problems = machine.problems()
    assert len(problems) == 1
    assert problem.format(file=file) in problems[0]
    assert str(file) in problems[0]


@pytest.mark.parametrize(
    "password",
    [
        "s3@cret/word",
        "123/s3cret",
        "123/4?s3cret",
        "123/?word=s3cret&s3",
        "123?word=s3cret",
        "s3cret?word",
        "s3cret/?word=s3",
        "#s3cret",
    ],
)
@pytest.mark.parametrize("url", ["broker.rabbitmq.url=amqp", "datastore.mongodb.url=mongodb"])
def test_a_password_that_would_end_early_is_refused_and_not_shown(
    machine: Machine, url: str, password: str
) -> None:
    (problem,) = machine.problems(f"{url}://user:{password}@host/")
    assert "must be percent-encoded: @ is %40, / is %2F" in problem, "123 reads like a port"
    assert "s3" not in problem


@pytest.mark.parametrize(
    "url",
    [
        "amqp://host/jobs@night",
        "amqp://[::1]/jobs@night",
        "amqp://[::1]:5672/jobs@night",
        "mongodb://host/?appName=a@b",
        "mongodb://host:27017/?appName=a@b",
        "mongodb://one:27017,two:27017/jobs?replicaSet=rs0&appName=a@b",
        "mongodb://[::1]:27017,two:27017/?appName=a@b",
        "mongodb://user:pw@[::1]:27017/?appName=a@b",
        "mongodb://user:pw@one:27017,two:27017/?appName=a@b",
    ],
)
def test_what_is_no_password_may_have_an_at_sign(machine: Machine, url: str) -> None:
    broker = url.startswith("amqp")
    config = machine.load(
        f"{'broker.rabbitmq' if broker else 'datastore.mongodb'}.url={url}"
    ).config
    assert (config.broker.rabbitmq.url if broker else config.datastore.mongodb.url) == url


def test_what_a_file_that_cannot_be_read_lacks_is_not_told(machine: Machine) -> None:
    file = machine.write("[broker")
    problems = machine.problems(role="coordinator")
    assert len(problems) == 1
    assert str(file) in problems[0]


def test_good_files(machine: Machine) -> None:
    machine.write(
        'encryption = {key = "k", old_keys = ["a,b", " c "]}\n'
        "coordinator.middleware = {body_limit = 2048, rate_limit.rate = 3}\n"
        '[worker]\nlimits = {cpus = 0.5, output = "2M"}\nhostenv = []\n'
        '[runtime.shell]\nuid = 1000\ngid = ""\n'
    )
    config = machine.load().config
    assert config.encryption.old_keys == ("a,b", "c")
    assert config.coordinator.middleware.body_limit == 2048
    assert config.coordinator.middleware.rate_limit.rate == 3.0
    assert (config.worker.limits.cpus, config.worker.limits.output) == ("0.5", 2 * 1024 * 1024)
    assert (config.runtime.shell.uid, config.runtime.shell.gid) == (1000, None)


def test_a_chosen_file_must_be_there(machine: Machine) -> None:
    (problem,) = machine.problems(file="none.toml")
    assert problem == f"{machine.cwd}/none.toml: can't be read: no such file or directory"
    (problem,) = machine.problems(environ={"HAULIER_CONFIG": str(machine.cwd)})
    assert problem == f"{machine.cwd}: can't be read: is a directory"


def test_faults_never_show_secrets(machine: Machine) -> None:
    machine.write(
        'encryption = 3\n[coordinator.middleware.key_auth]\nkye = "tops3cret"\nkey = 5551234\n'
    )
    problems = machine.problems(
        "broker.rabbitmq.url=amqq://me:hun/t@er2@h/",
        "encryption.key_old=tops3cret",
        environ={"HAULIER_DATASTORE_MONGODB_URL": "mongo://me:hunter2@h/"},
    )
    text = "\n".join(problems)
    assert len(problems) == 6
    for secret in ("tops3cret", "hunter2", "er2", "5551234"):
        assert secret not in text
    assert "amqq://me:********@h/" in text


BASIC = [
    "coordinator.middleware.basic_auth.enabled=yes",
    "coordinator.middleware.basic_auth.username=ann",
]
KEY = ["coordinator.middleware.key_auth.enabled=yes"]


@pytest.mark.parametrize(
    ("sets", "problem"),
    [
        (["engine.beat=8s"], 'engine.lease = "30s" (default): must be at least 31s'),
        (["engine.lease=24s"], 'engine.lease = "24s" (flag --set): must be at least 25s'),
        (["encryption.old_keys=a"], "encryption.old_keys"),
        (["worker.queues.default=0"], "worker.queues (flag --set): must have at least one slot"),
        (["coordinator.middleware.key_auth.enabled=yes"], "key_auth.key"),
        (["coordinator.middleware.basic_auth.username=a"], "basic_auth.password"),
        (["coordinator.middleware.basic_auth.password=a"], "basic_auth.username"),
        (["coordinator.middleware.cors.credentials=on"], "cors.origins"),
    ],
)
def test_settings_that_do_not_fit_together(machine: Machine, sets: list[str], problem: str) -> None:
    (found,) = machine.problems(*sets, role="standalone")
    assert problem in found


@pytest.mark.parametrize("role", ["worker", None])
@pytest.mark.parametrize("sets", [BASIC, KEY], ids=["basic_auth", "key_auth"])
def test_only_who_serves_the_api_needs_its_passwords(
    machine: Machine, role: str | None, sets: list[str]
) -> None:
    assert machine.load("broker.type=rabbitmq", *sets, role=role).file is None
    for serving in ("standalone", "coordinator"):
        (found,) = machine.problems("broker.type=rabbitmq", *sets, role=serving)
        assert "must be set" in found


def test_times_that_just_fit(machine: Machine) -> None:
    assert machine.load("engine.lease=25s").config.engine.lease == 25.0
    assert machine.load("engine.beat=7500ms").config.engine.beat == 7.5


def test_a_bad_value_is_not_blamed_twice(machine: Machine) -> None:
    assert len(machine.problems("engine.lease=never", "engine.beat=20s")) == 1
    assert len(machine.problems("worker.queues.default=x", "worker.queues.b=0")) == 1


@pytest.mark.parametrize("role", ["coordinator", "worker"])
def test_a_daemon_of_its_own_needs_a_real_broker(machine: Machine, role: str) -> None:
    (problem,) = machine.problems(role=role)
    assert problem.startswith('broker.type = "memory" (default): a ' + role)
    assert machine.load("broker.type=rabbitmq", role=role).config.broker.type == "rabbitmq"
    assert machine.load(role="standalone").config == machine.load().config


def test_standalone_says_which_services_it_does_not_use(machine: Machine) -> None:
    both = ("broker.type=rabbitmq", "datastore.type=mongodb")
    broker, datastore = machine.load(*both, role="standalone").warnings
    assert broker.startswith('broker.type = "rabbitmq" (flag --set): has no effect in standalone')
    assert datastore.startswith(
        'datastore.type = "mongodb" (flag --set): has no effect in standalone'
    )
    assert machine.load(*both, role="coordinator").warnings == []
    assert machine.load(*both, "extensions.broker=x", role="standalone").warnings == [datastore]
    assert machine.load(role="standalone").warnings == []


def test_the_data_directory_follows_the_users_choice(machine: Machine) -> None:
    config = machine.load(environ={"XDG_DATA_HOME": "/data"}).config
    assert config.datastore.sqlite.path == "/data/haulier/haulier.db"
    assert config.worker.data == "/data/haulier/worker"
    config = machine.load(environ={"XDG_DATA_HOME": "relative"}).config
    assert config.worker.data == f"{machine.home}/.local/share/haulier/worker"


def test_the_tree_is_whole_without_loading() -> None:
    config = Config()
    assert config.engine.lease == 30.0
    assert config == Config()
