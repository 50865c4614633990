import pytest

from shared.model.cron import Cron, cron_problem, parse_cron, timezone_problem


@pytest.mark.parametrize(
    ("text", "cron"),
    [
        ("*/5 9-17 * * MON-FRI", Cron(None, "*/5 9-17 * * MON-FRI", None)),
        ("0/5 * * * *", Cron(None, "0-59/5 * * * *", None)),
        ("0 2/6 * jan *", Cron(None, "0 2-23/6 * jan *", None)),
        ("0,30/10 * * * *", Cron(None, "0,30-59/10 * * * *", None)),
        ("0 0 ? * 7", Cron(None, "0 0 * * 7", None)),
        ("@hourly", Cron(None, "0 * * * *", None)),
        ("@annually", Cron(None, "0 0 1 1 *", None)),
        ("@every 90s", Cron(None, None, 90)),
        ("@every 1h30m", Cron(None, None, 5_400)),
        ("CRON_TZ=Europe/Berlin 0 5 * * *", Cron("Europe/Berlin", "0 5 * * *", None)),
        ("TZ=Asia/Tokyo @daily", Cron("Asia/Tokyo", "0 0 * * *", None)),
    ],
)
def test_schedules(text: str, cron: Cron) -> None:
    assert parse_cron(text) == cron


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * *", "five fields"),
        ("60 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("0 0 30 2 *", "day"),
        ("*/0 * * * *", "minute"),
        ("@often", "@hourly"),
        ("@every 5", "duration"),
        ("@every 10ms", "at least 1s"),
        ("@every -5s", "at least 1s"),
        ("TZ=Mars/Olympus * * * * *", "time zone"),
        ("1," * 1_000 + "1 * * * *", "too long"),
    ],
)
def test_no_schedules(text: str, message: str) -> None:
    problem = cron_problem(text)
    assert problem is not None
    assert message in problem


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Ushuaia"])
def test_zones(name: str) -> None:
    assert timezone_problem(name) is None


@pytest.mark.parametrize(
    "name", ["", "Nowhere", "../../etc/passwd", "/etc/localtime", "a\0b", "Europe"]
)
def test_no_zones(name: str) -> None:
    assert timezone_problem(name) is not None
