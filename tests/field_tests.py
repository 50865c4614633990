"""Which test shows each field of the job language at work on a running server.

The reference page lists them (`make docs`); `tests/unit/model/test_field_coverage.py` fails for a field without one.
"""

from __future__ import annotations

from typing import Final

_TASKS: Final = "tests/acceptance/test_language_tasks.py"
_RETRY: Final = "tests/acceptance/test_language_retry.py"
_COMPOSITES: Final = "tests/acceptance/test_language_composites.py"
_CONTAINERS: Final = "tests/acceptance/test_language_containers.py"
_SECRETS: Final = "tests/acceptance/test_language_secrets.py"
_WEBHOOKS: Final = "tests/acceptance/test_language_webhooks.py"
_SUBMISSION: Final = "tests/acceptance/test_language_submission.py"
_EXAMPLES: Final = "tests/acceptance/test_examples.py"
_SCHEDULES: Final = "tests/unit/engine/test_schedules.py"

_TEMPLATES: Final = f"{_TASKS}::test_templates_stand_in_every_place_of_a_task"
_CMD: Final = f"{_TASKS}::test_cmd_is_a_template_and_entrypoint_is_not"
_DEFAULTS: Final = f"{_TASKS}::test_defaults_reach_each_task_that_does_not_set_its_own"
_SMALL: Final = f"{_CONTAINERS}::test_small_tasks_have_all_their_fields"
_SIDECARS: Final = f"{_CONTAINERS}::test_sidecars_have_all_their_fields"
_SUMMARY: Final = f"{_WEBHOOKS}::test_a_job_tells_of_its_states_with_its_summary"
_INTO: Final = f"{_COMPOSITES}::test_data_goes_into_a_subjob_by_templates_and_out_by_its_output"
_OWN: Final = f"{_COMPOSITES}::test_a_subjob_has_defaults_tags_and_an_end_of_its_own"
_FIRES: Final = f"{_SUBMISSION}::test_a_schedule_fires_is_paused_resumed_and_deleted"
_HIDDEN: Final = f"{_SUBMISSION}::test_permissions_hide_a_job_from_all_others"
_EACH: Final = f"{_COMPOSITES}::test_each_goes_over_any_list_or_map"
_LIMITS: Final = f"{_CONTAINERS}::test_limits_hold_inside"


def _example(name: str) -> str:
    return f"{_EXAMPLES}::test_an_example_runs_to_its_end[standalone-{name}]"


TESTS: Final[dict[str, str]] = {
    "JobDefinition.name": _SUMMARY,
    "JobDefinition.description": _SUMMARY,
    "JobDefinition.tags": _SUMMARY,
    "JobDefinition.tasks": f"{_SUBMISSION}::test_a_submitted_job_reads_back_as_it_was_and_can_be_submitted_again",
    "JobDefinition.inputs": f"{_TASKS}::test_outputs_go_from_task_to_task_byte_for_byte",
    "JobDefinition.secrets": f"{_SECRETS}::test_a_secret_stands_in_nothing_that_leaves",
    "JobDefinition.output": f"{_TASKS}::test_the_latest_of_a_var_wins_and_text_outside_braces_stays",
    "JobDefinition.defaults": _DEFAULTS,
    "JobDefinition.autoDelete": f"{_TASKS}::test_a_failed_job_is_never_deleted_by_itself",
    "JobDefinition.webhooks": _SUMMARY,
    "JobDefinition.wait": f"{_SUBMISSION}::test_a_submission_that_waits_gets_the_whole_job",
    "JobDefinition.permissions": _HIDDEN,
    "JobDefinition.schedule": _FIRES,
    "TaskDefinition.name": _TEMPLATES,
    "TaskDefinition.description": _TEMPLATES,
    "TaskDefinition.image": _TEMPLATES,
    "TaskDefinition.run": _TEMPLATES,
    "TaskDefinition.cmd": _CMD,
    "TaskDefinition.entrypoint": _CMD,
    "TaskDefinition.env": _TEMPLATES,
    "TaskDefinition.files": f"{_TASKS}::test_files_stand_read_only_in_the_working_directory",
    "FileTemplate.template": f"{_TASKS}::test_a_file_can_be_a_template",
    "TaskDefinition.registry": _example("registry"),
    "TaskDefinition.timeout": f"{_TASKS}::test_a_task_that_takes_too_long_is_stopped_and_failed",
    "TaskDefinition.tags": _example("inputs"),
    "TaskDefinition.workdir": _example("workdir"),
    "TaskDefinition.var": f"{_TASKS}::test_outputs_go_from_task_to_task_byte_for_byte",
    "TaskDefinition.if": f"{_TASKS}::test_only_the_text_false_skips_a_task",
    "TaskDefinition.queue": f"{_TASKS}::test_a_queue_without_a_worker_keeps_its_tasks",
    "TaskDefinition.priority": f"{_TASKS}::test_higher_priorities_go_first_within_a_queue",
    "TaskDefinition.retry": f"{_RETRY}::test_a_crash_between_attempts_changes_nothing",
    "TaskDefinition.limits": _LIMITS,
    "TaskDefinition.gpus": _example("gpus"),
    "TaskDefinition.mounts": _example("mounts"),
    "TaskDefinition.networks": _example("networks"),
    "TaskDefinition.pre": _SMALL,
    "TaskDefinition.post": _SMALL,
    "TaskDefinition.sidecars": _SIDECARS,
    "TaskDefinition.parallel": f"{_COMPOSITES}::test_parallel_runs_all_at_once_and_ends_with_the_last",
    "TaskDefinition.each": _EACH,
    "TaskDefinition.subjob": _INTO,
    "Defaults.retry": _DEFAULTS,
    "Defaults.limits": f"{_CONTAINERS}::test_limits_of_the_defaults_merge_field_by_field",
    "Defaults.timeout": _DEFAULTS,
    "Defaults.queue": _DEFAULTS,
    "Defaults.priority": _DEFAULTS,
    "AutoDelete.after": f"{_TASKS}::test_a_completed_job_goes_away_with_its_tasks_and_logs",
    "Webhook.url": f"{_WEBHOOKS}::test_a_subjob_tells_by_webhooks_of_its_own",
    "Webhook.event": f"{_WEBHOOKS}::test_tasks_tell_of_their_states_skipped_ones_and_children_too",
    "Webhook.headers": f"{_WEBHOOKS}::test_a_subjob_tells_by_webhooks_of_its_own",
    "Webhook.if": f"{_WEBHOOKS}::test_a_jobs_webhook_is_sent_only_where_its_if_is_true",
    "Webhook.secret": f"{_WEBHOOKS}::test_a_delivery_is_signed_as_standard_webhooks_say",
    "Wait.timeout": f"{_SUBMISSION}::test_a_wait_that_is_too_short_answers_408_and_the_job_goes_on",
    "Permission.user": _HIDDEN,
    "Permission.role": _HIDDEN,
    "ScheduleDefinition.cron": _FIRES,
    "ScheduleDefinition.timezone": f"{_SCHEDULES}::test_fields_are_read_in_the_schedules_zone",
    "ScheduleDefinition.at": f"{_SCHEDULES}::test_one_that_fires_once_fires_at_its_time_and_never_again",
    "ScheduleDefinition.overlap": f"{_SCHEDULES}::test_what_becomes_of_a_firing_while_the_job_before_still_runs",
    "ScheduleDefinition.catchup": f"{_SCHEDULES}::test_firings_missed_while_nobody_was_awake_are_made_up_where_asked",
    "Registry.username": _SMALL,
    "Registry.password": _SMALL,
    "Retry.limit": f"{_RETRY}::test_attempts_come_at_the_delays_asked_for",
    "Retry.initialDelay": f"{_RETRY}::test_delays_are_those_of_the_definition",
    "Retry.scalingFactor": f"{_RETRY}::test_delays_are_those_of_the_definition",
    "Retry.jitter": f"{_RETRY}::test_jitter_spreads_delays_to_both_sides",
    "Limits.cpus": _LIMITS,
    "Limits.memory": _LIMITS,
    "Limits.pids": _LIMITS,
    "Mount.type": _example("mounts"),
    "Mount.source": _example("bind-mount"),
    "Mount.target": _example("mounts"),
    "Mount.opts": _example("volume-options"),
    "Parallel.tasks": f"{_COMPOSITES}::test_parallel_runs_all_at_once_and_ends_with_the_last",
    "Each.list": _EACH,
    "Each.var": f"{_COMPOSITES}::test_a_loop_variable_hides_inputs_inside_and_only_there",
    "Each.concurrency": f"{_COMPOSITES}::test_concurrency_bounds_what_runs_at_once",
    "Each.task": _EACH,
    "SidecarProbe.path": _SIDECARS,
    "SidecarProbe.port": _SIDECARS,
    "SidecarProbe.timeout": f"{_CONTAINERS}::test_a_sidecar_that_never_answers_fails_the_task_in_its_time",
    "SubJob.name": _INTO,
    "SubJob.description": _OWN,
    "SubJob.tags": _OWN,
    "SubJob.tasks": _INTO,
    "SubJob.inputs": _INTO,
    "SubJob.secrets": _INTO,
    "SubJob.output": _INTO,
    "SubJob.defaults": _OWN,
    "SubJob.autoDelete": _OWN,
    "SubJob.webhooks": f"{_WEBHOOKS}::test_a_subjob_tells_by_webhooks_of_its_own",
    "SubJob.wait": _OWN,
    "SubJob.detached": f"{_COMPOSITES}::test_a_detached_subjob_goes_its_own_way",
    "SmallTask.timeout": f"{_CONTAINERS}::test_a_small_task_past_its_timeout_fails_the_task",
    **{
        f"SmallTask.{name}": _SMALL
        for name in (
            "name", "description", "image", "run", "cmd", "entrypoint", "env", "files", "registry",
        )
    },
    "Sidecar.timeout": f"{_CONTAINERS}::test_a_sidecar_has_a_time_limit_of_its_own",
    **{
        f"Sidecar.{name}": _SIDECARS
        for name in (
            "name", "description", "image", "run", "cmd", "entrypoint", "env", "files", "registry",
            "probe",
        )
    },
}  # fmt: skip
"""The field, as the model's reference calls it, and the id of the test."""
