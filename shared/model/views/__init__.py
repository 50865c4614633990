"""What the API, events and webhooks show of documents (the REST API spec, Fields).

A view is typed, camel case on the wire, redacted, and leaves out empty texts, maps and lists, but
never a number. Making one is pure: what must be read from elsewhere is handed in.
"""

from shared.model.views.base import View, plain, rfc3339
from shared.model.views.jobs import (
    ContextView,
    JobSummary,
    JobView,
    ScheduleView,
    job_summary,
    job_view,
    schedule_view,
)
from shared.model.views.nodes_users import (
    ActorView,
    LogPartView,
    MetricsView,
    NodeView,
    RoleView,
    UserView,
    actor_view,
    log_part_view,
    node_status,
    node_view,
    role_view,
    user_view,
)
from shared.model.views.redacting import redacted, redactor_of, secret_values
from shared.model.views.tasks import TaskSummary, TaskView, task_summary, task_view

__all__ = [
    "ActorView",
    "ContextView",
    "JobSummary",
    "JobView",
    "LogPartView",
    "MetricsView",
    "NodeView",
    "RoleView",
    "ScheduleView",
    "TaskSummary",
    "TaskView",
    "UserView",
    "View",
    "actor_view",
    "job_summary",
    "job_view",
    "log_part_view",
    "node_status",
    "node_view",
    "plain",
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
