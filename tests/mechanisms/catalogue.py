"""All mechanisms, in the order in which a task meets them; and the promises that they hold."""

from __future__ import annotations

from tests.mechanisms import edges_cut, runs_cut, structure_cut
from tests.mechanisms.mechanism import Cut, Mechanism

ENGINE = "tests/unit/engine/test_"
WORKER = "tests/unit/worker/test_"
RETENTION = "tests/contract/test_retention.py::"
DUE = "tests/contract/test_due_work.py::"
HERE = "tests/mechanisms/test_"


def _mechanism(
    name: str,
    promises: tuple[int, ...],
    cut: Cut,
    tests: tuple[str, ...],
    how: str,
    needs: str | None = None,
) -> Mechanism:
    """Return a mechanism; what is taken out is what its cut says."""
    assert cut.__doc__ is not None
    out = cut.__doc__.rstrip(".")
    return Mechanism(
        name=name, promises=promises, out=out, cut=cut, tests=tests, how=how, needs=needs
    )


MECHANISMS: tuple[Mechanism, ...] = (
    # --- a job is stored, begun, sent ---
    _mechanism(
        "stored-first", (1,), edges_cut.stored_first,
        (f"{HERE}edges.py::test_a_job_that_was_not_stored_is_not_answered_for",),
        "the store refuses the insert, and submit answers all the same",
    ),
    _mechanism(
        "then", (1, 2, 3), structure_cut.intents,
        (f"{HERE}structure.py::test_what_follows_from_an_end_is_done_though_who_applied_it_dies",),
        "the coordinator dies after it applied an end; the next task never comes",
    ),
    _mechanism(
        "confirm", (2,), structure_cut.confirms,
        (f"{HERE}repairs.py::test_a_task_that_the_broker_did_not_take_is_sent_again_as_unconfirmed",),
        "the sweeper counts `swept_unheard` where it should count `swept_unconfirmed`",
    ),
    _mechanism(
        "confirm-rabbitmq", (2,), edges_cut.rabbitmq_confirms,
        ("tests/integration/rabbitmq/test_publishing.py::test_a_returned_message_has_its_queue_declared_and_goes_again",),
        "a message that no queue took is never heard of again",
        needs="rabbitmq",
    ),
    _mechanism(
        "derived-ids", (2, 3, 11), structure_cut.derived_ids,
        (
            f"{ENGINE}composites.py::test_an_expansion_that_stopped_between_batches_goes_on",
            f"{ENGINE}schedules.py::test_a_firing_that_was_stored_but_not_moved_on_makes_no_second_job",
        ),
        "what is done twice makes its tasks, or its job, twice",
    ),
    # --- a run ---
    _mechanism(
        "claim", (5,), edges_cut.claim,
        (
            f"{WORKER}daemon.py::test_nothing_of_a_task_starts_before_its_grant",
            f"{WORKER}daemon.py::test_a_refused_task_is_acknowledged_and_forgotten",
        ),
        "the worker runs what nobody granted",
    ),
    _mechanism(
        "grant", (5,), runs_cut.grant,
        (f"{ENGINE}claims.py::test_two_workers_that_hold_copies_get_one_grant",),
        "both get it",
    ),
    _mechanism(
        "nonce", (3, 5), runs_cut.nonce,
        (
            f"{ENGINE}claims.py::test_another_nonce_is_refused_while_a_run_counts",
            f"{ENGINE}ends.py::test_an_end_of_another_run_changes_nothing",
        ),
        "who asks for what runs elsewhere is granted it too; a stranger's end counts",
    ),
    _mechanism(
        "run-number", (5, 10), runs_cut.run_number,
        (f"{HERE}runs.py::test_parts_of_an_older_runs_log_that_come_late_are_refused",),
        "the log holds lines of two runs",
    ),
    _mechanism(
        "grant-look", (3, 5), runs_cut.grant_look,
        (
            f"{ENGINE}orphans.py::test_a_task_of_a_job_that_has_ended_is_not_granted",
            f"{ENGINE}orphans.py::test_a_task_of_a_lower_restart_is_not_granted",
            f"{ENGINE}orphans.py::test_a_task_whose_job_is_gone_is_not_granted_but_removed",
        ),
        "what was inserted late runs under a job that has ended, or beside its restart",
    ),
    _mechanism(
        "beat-first", (5,), runs_cut.beat_first,
        (f"{ENGINE}claims.py::test_a_lease_that_ends_soon_is_renewed_before_a_grant",),
        "a run is granted that its lease hardly outlives",
    ),
    _mechanism(
        "named-predecessors", (15,), edges_cut.named_predecessors,
        (f"{WORKER}process_folder.py::test_a_daemon_goes_on_where_one_ended_that_was_killed",),
        "the tasks of a worker that is started again wait for its lease",
    ),
    _mechanism(
        "written-ends", (4, 15), edges_cut.written_ends,
        (f"{WORKER}process_folder.py::test_an_end_is_kept_before_it_is_told_and_until_it_is_stored",),
        "a task that had ended runs again when its worker is started again",
    ),
    _mechanism(
        "closed-for-good", (5, 15), runs_cut.closed_for_good,
        (f"{ENGINE}beats.py::test_no_late_beat_opens_an_epoch_of_a_node_that_was_succeeded",),
        "a late beat brings a dead process's node back",
    ),
    _mechanism(
        "unwanted-grants", (2, 5), edges_cut.unwanted_grants,
        (f"{WORKER}daemon.py::test_a_grant_that_nobody_waits_for_is_handed_back",),
        "nothing is handed back",
    ),
    _mechanism(
        "lost-channels", (5, 7), edges_cut.lost_channels,
        (f"{HERE}edges.py::test_a_run_goes_on_when_the_channel_of_its_delivery_is_lost",),
        "the run is stopped",
    ),
    # --- its end ---
    _mechanism(
        "end-once", (3,), runs_cut.end_once,
        (
            f"{ENGINE}ends.py::test_the_first_end_of_a_run_counts",
            f"{ENGINE}ends.py::test_an_end_after_its_task_was_cancelled_is_forgotten",
            f"{ENGINE}beats.py::test_the_end_of_a_run_that_was_missing_does_not_count",
        ),
        "an end changes what has ended, or was lost for good",
    ),
    _mechanism(
        "kept-ends", (4,), edges_cut.kept_ends,
        (f"{WORKER}daemon.py::test_an_end_is_listed_until_it_is_told_stored_and_sent_again_when_asked",),
        "the beats no longer list it, and it is not sent again",
    ),
    _mechanism(
        "confirmed-ends", (4, 10), edges_cut.confirmed_ends,
        (f"{HERE}edges.py::test_an_end_is_sent_until_the_broker_has_it",),
        "the broker, away for a moment, never gets it",
    ),
    _mechanism(
        "vanished", (6,), edges_cut.vanished,
        (f"{WORKER}daemon.py::test_a_run_whose_container_vanished_is_handed_back_as_lost",),
        "the task fails",
    ),
    _mechanism(
        "redeliveries", (2, 12), runs_cut.redeliveries,
        (f"{ENGINE}ends.py::test_a_task_that_is_lost_too_often_fails",),
        "it goes round for ever",
    ),
    # --- beats and leases ---
    _mechanism(
        "reconciliation", (2, 4, 5), runs_cut.reconciliation,
        (
            f"{ENGINE}beats.py::test_a_lost_grant_is_told_again_by_the_next_beat",
            f"{ENGINE}beats.py::test_a_lost_end_is_asked_for",
            f"{ENGINE}beats.py::test_a_run_that_is_not_granted_is_stopped",
            f"{ENGINE}beats.py::test_a_granted_nonce_that_is_missing_is_lost_from_the_second_beat_on",
        ),
        "lost answers stay lost, runs that no longer count go on, missing runs stay RUNNING",
    ),
    _mechanism(
        "beat-numbers", (5,), runs_cut.beat_numbers,
        (f"{ENGINE}beats.py::test_a_beat_that_a_later_one_overtook_is_dropped_whole",),
        "the late beat renews the lease, and a run that it does not list is lost",
    ),
    _mechanism(
        "lease", (2, 5, 6), runs_cut.lease,
        (f"{ENGINE}pulse.py::test_a_killed_workers_task_runs_elsewhere_within_a_minute",),
        "the task of a killed worker never runs again",
    ),
    _mechanism(
        "epochs", (5,), runs_cut.epochs,
        (f"{HERE}runs.py::test_a_run_that_a_late_beat_keeps_is_not_lost_by_who_had_closed_its_lease",),
        "a live run that was kept is lost",
    ),
    _mechanism(
        "taking-back", (4, 5), runs_cut.taking_back,
        (
            f"{ENGINE}beats.py::test_a_beat_after_that_opens_the_next_epoch_and_takes_the_run_back",
            f"{ENGINE}beats.py::test_an_end_is_taken_back_too",
        ),
        "a live run, or one that has ended, is thrown away",
    ),
    _mechanism(
        "pulse", (4, 5), runs_cut.the_pulse,
        (
            f"{HERE}runs.py::test_a_minute_without_coordinators_makes_no_live_run_look_dead",
            f"{ENGINE}pulse.py::test_no_lease_runs_out_before_its_end_is_behind_the_pulse",
        ),
        "`lease_ran_out` is counted though the worker lives",
    ),
    _mechanism(
        "era", (4, 5), runs_cut.era,
        (
            f"{HERE}runs.py::test_a_minute_without_coordinators_makes_no_live_run_look_dead",
            f"{ENGINE}pulse.py::test_no_lease_runs_out_in_a_young_era",
        ),
        "`lease_ran_out` is counted though the worker lives",
    ),
    _mechanism(
        "closed-epochs", (2,), runs_cut.closers,
        (f"{ENGINE}beats.py::test_runs_left_by_whoever_died_closing_an_epoch_are_found",),
        "the runs stay RUNNING",
    ),
    # --- structure ---
    _mechanism(
        "open", (2, 3), structure_cut.open_tasks,
        (f"{HERE}structure.py::test_a_parent_waits_for_an_attempt_that_is_not_inserted_yet",),
        "the parent completes with a failed child",
    ),
    _mechanism(
        "look-again", (2, 3), structure_cut.second_look,
        (
            f"{HERE}structure.py::test_a_next_task_inserted_after_a_cancel_does_not_stay",
            f"{HERE}structure.py::test_an_attempt_inserted_after_a_cancel_does_not_stay",
            f"{ENGINE}composites.py::test_children_inserted_below_a_parent_that_ended_do_not_stay",
        ),
        "tasks of a cancelled job are left open for the sweeper",
    ),
    _mechanism(
        "sub-job-look", (2, 3), structure_cut.subjob_look,
        (f"{ENGINE}orphans.py::test_whoever_begins_a_sub_job_looks_whether_somebody_waits_for_it",),
        "a sub-job that was inserted below a cancelled task begins",
    ),
    _mechanism(
        "withdraw-below", (2, 3), structure_cut.withdraw_below,
        (f"{ENGINE}orphans.py::test_what_an_intent_may_have_made_is_withdrawn_before_it_is_dropped",),
        "children of a cancelled composite stay open, and nothing tells of them",
    ),
    _mechanism(
        "long-withdrawals", (2,), structure_cut.long_withdrawals,
        (f"{ENGINE}orphans.py::test_a_cancel_reaches_more_sub_jobs_than_one_step_takes",),
        "most sub-jobs go on",
    ),
    _mechanism(
        "removal-below", (2,), structure_cut.removal_below,
        (f"{ENGINE}orphans.py::test_a_deleted_job_goes_with_all_its_sub_jobs",),
        "the sub-jobs of a deleted job go on",
    ),
    _mechanism(
        "tombstones", (3,), structure_cut.tombstones,
        (
            f"{ENGINE}orphans.py::test_a_sub_job_that_came_and_went_is_not_made_again",
            f"{ENGINE}orphans.py::test_whoever_looked_before_a_job_was_deleted_and_is_late_makes_none",
            f"{ENGINE}schedules.py::test_a_firing_whose_job_came_and_went_makes_none_again",
            f"{RETENTION}test_a_submission_whose_answer_was_lost_makes_no_second_job[memory]",
        ),
        "a job runs a second time after it was deleted",
    ),
    _mechanism(
        "vars-of-restart", (3,), structure_cut.vars_of_restart,
        (f"{ENGINE}orphans.py::test_values_of_before_a_restart_are_not_those_of_what_runs_anew",),
        "a composite that runs anew reads what its own children gave before the restart",
    ),
    _mechanism(
        "unique-slots", (3,), structure_cut.unique_slots,
        (f"{HERE}structure.py::test_a_slot_that_is_handed_over_twice_is_taken_once",),
        "two run where `concurrency` is 1",
    ),
    _mechanism(
        "hand-over", (2,), structure_cut.hand_over,
        (f"{ENGINE}composites.py::test_no_more_run_at_once_than_concurrency_allows",),
        "held children are left to the sweeper, which this test keeps away",
    ),
    _mechanism(
        "restarts", (3,), structure_cut.restarts,
        (f"{HERE}structure.py::test_what_was_on_its_way_before_a_restart_moves_nothing",),
        "what follows from the life before moves the restarted job",
    ),
    # --- the sweeper ---
    _mechanism(
        "sweeper", (1, 2), runs_cut.sweeper,
        (
            f"{HERE}repairs.py::test_a_task_that_lies_in_no_queue_is_sent_again",
            f"{ENGINE}pulse.py::test_a_killed_workers_task_runs_elsewhere_within_a_minute",
        ),
        "nobody puts it right",
    ),
    _mechanism(
        "sweep-overdue", (1, 2), structure_cut.overdue,
        (
            f"{HERE}repairs.py::test_a_job_that_nobody_was_told_of_is_begun",
            f"{HERE}edges.py::test_a_job_is_answered_for_without_a_broker_and_begun_when_one_is_there",
        ),
        "the job stays PENDING",
    ),
    _mechanism(
        "drain-stored", (8,), runs_cut.drain_told_once,
        (f"{ENGINE}beats.py::test_a_drain_whose_message_was_lost_is_told_again",),
        "the worker goes on taking tasks",
    ),
    _mechanism(
        "seldom-asked", (13,), runs_cut.seldom_asked,
        (f"{ENGINE}beats.py::test_an_end_that_waits_in_a_long_queue_is_asked_for_ever_more_seldom",),
        "a queue that is long already gets each of its ends again at every beat",
    ),
    _mechanism(
        "told-first", (3, 11), structure_cut.told_first,
        (f"{RETENTION}test_a_removed_jobs_webhooks_are_delivered_first[memory]",),
        "a job with `autoDelete` takes its webhooks with it",
    ),
    _mechanism(
        "logs-that-grow", (10,), structure_cut.logs_that_grow,
        (f"{RETENTION}test_the_log_of_a_job_that_goes_on_is_kept_however_old[memory]",),
        "the first lines of a long run are gone",
    ),
    _mechanism(
        "settled-era", (11,), structure_cut.settled_era,
        (f"{RETENTION}test_nothing_goes_for_its_age_soon_after_a_clock_jumped[memory]",),
        "a clock that jumps forward takes all ended jobs with it",
    ),
    _mechanism(
        "patient-host", (13,), structure_cut.patient_host,
        ("tests/unit/test_webhook_sender.py::test_a_host_that_times_out_gets_one_place_until_it_answers",),
        "a receiver that hangs keeps twenty places",
    ),
    _mechanism(
        "greedy-user", (13,), structure_cut.greedy_user,
        ("tests/unit/test_webhook_sender.py::test_one_user_leaves_room_for_others_whatever_the_hosts",),
        "one user with many receivers that hang has all places",
    ),
    _mechanism(
        "turns-of-evaluations", (13,), structure_cut.turns_of_evaluations,
        (f"{ENGINE}evaluations.py::test_short_ones_leave_the_loop_turns_however_many_there_are",),
        "a fan-out of costly templates keeps everybody waiting",
    ),
    _mechanism(
        "unready-jobs", (1, 2), structure_cut.unready_jobs,
        (f"{ENGINE}restart.py::test_what_is_kept_of_a_job_that_is_never_made_goes",),
        "a process dies while it makes a job from a step on, and half of it stays",
    ),
    _mechanism(
        "unstorable-ends", (2, 12), structure_cut.unstorable_ends,
        (f"{ENGINE}ends.py::test_an_end_that_can_not_be_stored_is_a_failure",),
        "the message of the end is buried, and the task runs for ever",
    ),
    _mechanism(
        "late-firings", (11,), structure_cut.late_firings,
        (f"{ENGINE}schedules.py::test_a_coordinator_that_was_awake_makes_what_others_leave",),
        "a daily firing is skipped because the look came late",
    ),
    _mechanism(
        "firing-intent", (11,), structure_cut.firing_intent,
        (f"{ENGINE}schedules.py::test_a_firing_whose_coordinator_died_is_made_by_another",),
        "a firing whose coordinator died makes no job",
    ),
    _mechanism(
        "due-shared", (11, 13), structure_cut.shared_due,
        (f"{DUE}test_coordinators_share_what_is_overdue[memory]",),
        "two coordinators that look at once do everything twice",
    ),
    _mechanism(
        "due-tries", (12, 13), structure_cut.tries,
        (f"{DUE}test_a_failing_work_ends_its_job_with_the_reason[memory]",),
        "the job stays PENDING, without a word",
    ),
    _mechanism(
        "due-alone", (13,), structure_cut.tried_alone,
        (f"{DUE}test_what_its_process_died_of_is_tried_alone[memory]",),
        "what killed a process is tried beside other work",
    ),
    _mechanism(
        "due-room", (13,), structure_cut.room_for_others,
        (f"{DUE}test_one_jobs_work_leaves_room_for_anothers[memory]",),
        "another job's work is not begun while one job's hangs",
    ),
    _mechanism(
        "due-places", (13,), structure_cut.places_given_back,
        (f"{DUE}test_fan_outs_that_wait_for_their_turn_leave_room_for_others[memory]",),
        "fan-outs that wait for their turn keep others' overdue work waiting",
    ),
    _mechanism(
        "sweep-unconfirmed", (2,), structure_cut.unconfirmed,
        (f"{HERE}repairs.py::test_a_task_that_the_broker_did_not_take_is_sent_again_as_unconfirmed",),
        "the task stays PENDING",
    ),
    _mechanism(
        "sweep-unheard", (2,), structure_cut.unheard,
        (f"{HERE}repairs.py::test_a_task_that_lies_in_no_queue_is_sent_again",),
        "the task stays SCHEDULED",
    ),
    _mechanism(
        "sweep-overtaken", (2,), structure_cut.overtaken,
        (f"{HERE}repairs.py::test_a_task_that_was_overtaken_is_sent_again_from_a_busy_queue",),
        "the task stays SCHEDULED as long as its queue is busy",
    ),
    _mechanism(
        "sweep-slots", (2,), structure_cut.free_slots,
        (f"{HERE}repairs.py::test_a_free_slot_that_nobody_gave_on_is_given_on",),
        "the held child is never released",
    ),
    _mechanism(
        "sweep-composites", (2,), structure_cut.composites_over,
        (f"{HERE}repairs.py::test_a_composite_that_nobody_asked_after_its_last_child_completes",),
        "the parent stays RUNNING",
    ),
    _mechanism(
        "sweep-ended", (2,), structure_cut.under_ended,
        (f"{HERE}repairs.py::test_what_is_open_below_an_ended_job_is_cancelled",),
        "the task stays PENDING",
    ),
    _mechanism(
        "sweep-restarts", (2, 3), structure_cut.lower_restarts,
        (f"{ENGINE}orphans.py::test_what_is_open_of_a_lower_restart_is_found",),
        "the task stays SCHEDULED",
    ),
    _mechanism(
        "sweep-sub-jobs", (2, 3), structure_cut.lost_subjobs,
        (f"{ENGINE}orphans.py::test_a_sub_job_that_nobody_waits_for_is_found",),
        "it goes on",
    ),
    _mechanism(
        "sweep-unwanted", (2, 3), structure_cut.unwanted,
        (f"{ENGINE}orphans.py::test_what_is_not_to_go_on_is_not_sent_again",),
        "a task of a cancelled job is sent to its queue",
    ),
    # --- hosts, drains, edges ---
    _mechanism(
        "who-is-dead", (6,), edges_cut.who_is_dead,
        (f"{WORKER}daemon.py::test_it_asks_which_nodes_are_dead_before_it_removes_what_they_left",),
        "a live node's things are removed",
    ),
    _mechanism(
        "drain-waits", (4, 8), edges_cut.drain_waits,
        (f"{HERE}edges.py::test_a_draining_worker_stays_until_its_end_is_stored",),
        "the worker is gone before its end is stored",
    ),
    _mechanism(
        "drain-hands-back", (8,), edges_cut.drain_hands_back,
        (f"{WORKER}daemon.py::test_past_the_grace_time_a_draining_worker_hands_back_what_runs",),
        "nothing is handed back",
    ),
    _mechanism(
        "unavailable", (9,), edges_cut.unavailable,
        ("tests/unit/api/test_health.py::test_without_the_datastore_everything_answers_503",),
        "the answer is 500",
    ),
    _mechanism(
        "stands-back", (2, 9), edges_cut.stands_back,
        (f"{HERE}edges.py::test_a_coordinator_without_a_store_leaves_its_messages_to_others",),
        "it goes on consuming",
    ),
    _mechanism(
        "part-ids", (10,), edges_cut.part_ids,
        (f"{ENGINE}ends.py::test_an_end_keeps_the_last_part_of_its_log",),
        "the last part is there twice",
    ),
    _mechanism(
        "parts-before-end", (10,), edges_cut.parts_before_end,
        (f"{WORKER}logs.py::test_a_long_log_arrives_whole_and_in_order_through_a_slow_post",),
        "the end is told before its log is there",
    ),
    _mechanism(
        "webhook-claims", (3, 11), edges_cut.webhook_claims,
        (f"{HERE}edges.py::test_a_delivery_that_two_coordinators_see_is_made_by_one",),
        "it is delivered twice",
    ),
    _mechanism(
        "store-clock", (11,), edges_cut.store_clock,
        (f"{ENGINE}attempts.py::test_a_failed_task_is_tried_again_after_its_delay",),
        "a wrong clock moves the deadline",
    ),
    _mechanism(
        "patient-ends", (4,), edges_cut.patient_ends,
        ("tests/contract/test_runtime.py::test_a_run_that_ends_while_its_worker_can_open_nothing_is_not_lost[shell-0]",),
        "its script runs a second time",
    ),
    _mechanism(
        "newer-kinds", (12,), edges_cut.newer_kinds,
        (f"{ENGINE}settling.py::test_a_kind_of_a_newer_version_is_given_back_before_it_is_buried[memory-jobs]",),
        "what a newer coordinator would have handled lies in `dead`",
    ),
    _mechanism(
        "dead", (12,), edges_cut.buried,
        (f"{HERE}edges.py::test_a_message_that_can_not_be_handled_ends_in_dead",),
        "it goes round for ever",
    ),
)  # fmt: skip


def named(name: str) -> Mechanism:
    """Return the mechanism of this name; `KeyError` where there is none."""
    return {mechanism.name: mechanism for mechanism in MECHANISMS}[name]


PROMISES: dict[int, str] = {
    1: "a job answered 200 is never lost",
    2: "no task is lost and none hangs",
    3: "the end of an attempt is applied once",
    4: "an attempt that finished is not run again",
    5: "at most one run of a task holds a grant",
    6: "a killed worker's tasks run elsewhere, and what it left is removed",
    7: "a task may run for days",
    8: "SIGTERM drains",
    9: "without the store, 503; then everything goes on",
    10: "of the log of the run that counts no part is lost or doubled",
    11: "time-based work is stored, shared by claim, and survives",
    12: "a message nobody can handle ends in `dead`",
    13: "one bad neighbour stops nobody",
    15: "a worker that is killed and started again goes on where it ended",
}

FAULTS = "tests/acceptance/test_cluster_faults.py::test_"
CLUSTER = "tests/acceptance/test_cluster.py::test_"
CHAOS = "tests/chaos/test_chaos.py::test_nothing_is_lost_and_nothing_done_twice"

ELSEWHERE: dict[int, tuple[str, ...]] = {
    1: (CHAOS, f"{FAULTS}a_primary_that_steps_down_under_load_loses_nothing"),
    2: (CHAOS, f"{FAULTS}rabbitmq_is_killed_under_load"),
    3: (CHAOS, "tests/faults/test_crashes.py::test_a_death_at_any_step_is_healed"),
    4: (CHAOS, f"{FAULTS}rabbitmq_restarts_while_fifty_jobs_run_and_none_runs_twice"),
    5: (CHAOS, f"{FAULTS}rabbitmq_restarts_while_fifty_jobs_run_and_none_runs_twice"),
    6: (CHAOS, f"{FAULTS}a_killed_workers_tasks_run_again_elsewhere"),
    7: (
        "tests/integration/rabbitmq/test_consuming.py::test_the_acknowledgement_timeout_costs_its_own_slot_only",
    ),
    8: (
        f"{FAULTS}a_rolling_restart_of_everything_repeats_nothing",
        f"{FAULTS}a_worker_that_drains_hands_back_what_outlasts_the_grace",
        f"{FAULTS}a_second_signal_stops_at_once",
    ),
    9: (
        f"{FAULTS}without_the_store_every_endpoint_answers_503",
        f"{FAULTS}without_the_broker_only_health_and_queues_answer_503",
    ),
    10: (CHAOS,),
    11: (CHAOS,),
    12: (f"{CLUSTER}messages_that_nobody_can_read_end_in_dead_and_block_nothing",),
    13: ("tests/faults/test_costly_templates.py::test_costly_templates_stop_nobody",),
    15: (
        f"{FAULTS}a_worker_that_is_killed_and_started_again_runs_its_tasks_again_at_once",
        f"{FAULTS}workers_that_share_a_data_folder_have_one_each_and_take_up_a_dead_ones",
    ),
}
"""Tests of each promise that need real processes."""
