"""The views of documents that the API, events and webhooks show (REST API spec, Fields).

A view is typed, camel case on the wire, redacted, and leaves out empty texts, maps and lists, but
never a number. Making one is pure: what must be read from elsewhere is handed in.
"""

from shared.model.views.jobs import (
    ActorView,
    ContextView,
    JobSummaryView,
    JobView,
    ScheduleView,
    actor_view,
    job_summary,
    job_view,
    schedule_view,
)
from shared.model.views.nodes_users import (
    LogPartView,
    MetricsView,
    NodeView,
    RoleView,
    UserView,
    log_part_view,
    node_status,
    node_view,
    role_view,
    user_view,
)
from shared.model.views.redacting import (
    View,
    as_plain,
    redacted,
    redactor_of,
    rfc3339,
    secret_values,
)
from shared.model.views.tasks import TaskSummaryView, TaskView, task_summary, task_view

__all__ = [
    "ActorView",
    "ContextView",
    "JobSummaryView",
    "JobView",
    "LogPartView",
    "MetricsView",
    "NodeView",
    "RoleView",
    "ScheduleView",
    "TaskSummaryView",
    "TaskView",
    "UserView",
    "View",
    "actor_view",
    "as_plain",
    "job_summary",
    "job_view",
    "log_part_view",
    "node_status",
    "node_view",
    "redacted",
    "redactor_of",
    "rfc3339",
    "role_view",
    "schedule_view",
    "secret_values",
    "task_summary",
    "task_view",
    "user_view",
]
