"""The views of documents that the API, events and webhooks show (REST API spec, Fields).

A view is typed, camel case on the wire, redacted, and leaves out empty texts, maps and lists, but
never a number. Making one is pure: what must be read from elsewhere is handed in.
"""

from shared.model.declared_secrets import hidden_values
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
    AuditView,
    LogPartView,
    MetricsView,
    NewTokenView,
    NodeView,
    RoleView,
    TokenView,
    UserView,
    audit_view,
    log_part_view,
    new_token_view,
    node_status,
    node_view,
    role_view,
    token_view,
    user_view,
)
from shared.model.views.redacted import (
    View,
    as_plain,
    redacted,
    redactor_of,
    rfc3339,
)
from shared.model.views.tasks import (
    TaskRefView,
    TaskSummaryView,
    TaskView,
    WaitingView,
    task_summary,
    task_view,
)

__all__ = [
    "ActorView",
    "AuditView",
    "ContextView",
    "JobSummaryView",
    "JobView",
    "LogPartView",
    "MetricsView",
    "NewTokenView",
    "NodeView",
    "RoleView",
    "ScheduleView",
    "TaskRefView",
    "TaskSummaryView",
    "TaskView",
    "TokenView",
    "UserView",
    "View",
    "WaitingView",
    "actor_view",
    "as_plain",
    "audit_view",
    "hidden_values",
    "job_summary",
    "job_view",
    "log_part_view",
    "new_token_view",
    "node_status",
    "node_view",
    "redacted",
    "redactor_of",
    "rfc3339",
    "role_view",
    "schedule_view",
    "task_summary",
    "task_view",
    "token_view",
    "user_view",
]
