"""What Locust's own web UI shows of a run beyond its tables: two more tabs and ``/flashproof``, the same as JSON.

Locust's tables are fed by ``LocustStats``, so their latencies count from the instant each request was due. The
first tab sets them beside those from the send, to the µs; the second shows what became of the plan and how late
the generator was. All by the seams Locust documents for extending its web UI: a Flask blueprint, ``template_args``
and the answer of ``/stats/requests``.

The UI is served by the generator's own loop: each look costs it some milliseconds, which the wake lag shows. A run
whose figures are to be kept is better not watched. A run that begins by itself is not begun by hand: where a master
waits for its workers, Locust's form would begin without some of them, and against any host that is typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import gevent
from flask import Blueprint, Response, jsonify, request

from loadtests.generator.dispatcher import Dispatcher
from loadtests.generator.generated import Progress
from loadtests.generator.recorder import Buckets, Recorder

PATH: Final = "/flashproof"
_LATENCY, _PLAN = "flashproof-latency", "flashproof-plan"
_SHARES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
BEYOND_LEAST: Final = 100  # values beyond a percentile that is shown as one
_BY_ITSELF: Final = "This run begins by itself when all is there, on the plan it was given: there is nothing to start."
_NOT_HERE: Final = "not known here yet"
_AT_THE_END: Final = "known at the end, from all workers; until then see Locust's own table, which counts from due too"
Row: TypeAlias = dict[str, Any]

_TABS: Final = [
    {"title": "Due and sent", "key": _LATENCY},
    {"title": "Plan and generator", "key": _PLAN},
]
_TABLES: Final = [
    {
        "key": _LATENCY,
        "structure": [
            {"key": "name", "title": "Answer"},
            {"key": "count", "title": "# Requests"},
            {"key": "due_p50", "title": "p50 from due (ms)"},
            {"key": "due_p90", "title": "p90 from due (ms)"},
            {"key": "due_p99", "title": "p99 from due (ms)"},
            {"key": "due_max", "title": "max from due (ms)"},
            {"key": "sent_p50", "title": "p50 from send (ms)"},
            {"key": "sent_p90", "title": "p90 from send (ms)"},
            {"key": "sent_p99", "title": "p99 from send (ms)"},
        ],
    },
    {"key": _PLAN, "structure": [{"key": "name", "title": "What"}, {"key": "figure", "title": "So far"}]},
]


class Live:
    """The figures of a run while it runs."""

    def __init__(self, recorder: Recorder, dispatcher: Dispatcher) -> None:
        """Take who knows them."""
        self._recorder, self._dispatcher = recorder, dispatcher

    def latencies(self) -> list[Row]:
        """Return a row for each histogram: percentiles in ms from the due instant and from the send."""
        rows = []
        for name, (due, sent) in sorted(self._recorder.histograms().items()):
            at_due, at_sent = percentiles_ms(due), percentiles_ms(sent)
            row: Row = {"name": name, "count": due.total, "due_max": round(due.max_us / 1000, 3)}
            row |= {f"due_{which}": value for which, value in at_due.items()}
            row |= {f"sent_{which}": value for which, value in at_sent.items()}
            rows.append(row)
            gevent.sleep(0)  # arrivals that are due go first
        return rows

    def plan(self) -> list[Row]:
        """Return what became of the arrivals, by outcome, and how the generator fares."""
        progress: Progress = self._dispatcher.progress()
        outcomes = dict(sorted(self._recorder.firsts.items()))
        open_ = progress.scheduled - sum(outcomes.values())
        lag = percentiles_ms(self._dispatcher.wake_lag)
        figures: dict[str, Any] = {"arrivals scheduled": progress.scheduled, "arrivals not decided yet": open_}
        figures |= {f"arrivals: {outcome}": count for outcome, count in outcomes.items()}
        figures |= {f"generator: wake lag {which} (ms)": value for which, value in lag.items()}
        read = percentiles_ms(self._recorder.read_lag)
        figures |= {f"generator: read lag {which} (ms)": value for which, value in read.items()}
        figures |= {"generator: CPU, share of a core": progress.cpu, "generator: buyers under way": progress.under_way}
        return [{"name": name, "figure": figure} for name, figure in sorted(figures.items())]


class Together:
    """The same where others play and this process leads them: what they told last, all together."""

    def __init__(self, progress: Progress) -> None:
        """Take the sum of their progress."""
        self._progress = progress

    def latencies(self) -> list[Row]:
        """Return that they are not known: the workers' histograms are merged at the end."""
        return [{"name": _AT_THE_END}]

    def plan(self) -> list[Row]:
        """Return how far the plan is, and how the busiest worker fares."""
        said = self._progress
        figures = {
            "arrivals scheduled": said.scheduled,
            "arrivals sent": said.sent,
            "arrivals: refused": said.refused,
            "arrivals: shed": said.shed,
            "orders accepted": said.accepted,
            "accepted lately: p99 of the slowest worker (ms)": round(said.p99_us / 1000, 3),
            "generator: CPU, share of a core, busiest worker": said.cpu,
            "generator: buyers under way": said.under_way,
        }
        return [{"name": name, "figure": figure} for name, figure in sorted(figures.items())]


def percentiles_ms(buckets: Buckets | None) -> dict[str, float | str]:
    """Return percentiles in ms; "–" for one with fewer than 100 values beyond it."""
    found: dict[str, float | str] = dict.fromkeys(_SHARES, "–")
    if buckets is None or not buckets.total:
        return found
    ranks = {
        which: max(1, round(share * buckets.total))
        for which, share in _SHARES.items()
        if buckets.total * (1 - share) >= BEYOND_LEAST
    }
    seen = 0
    for edge_us in sorted(buckets.counts):
        seen += buckets.counts[edge_us]
        for which in [which for which, rank in ranks.items() if seen >= rank]:
            found[which] = round(edge_us / 1000, 3)
            del ranks[which]
        if not ranks:
            break
    return found


def extend(environment: Any, web_ui: Any = None, **_: Any) -> None:
    """Add the tabs and the page, where there is a web UI; a listener of Locust's ``init``."""
    if web_ui is None:
        return
    face = Blueprint("flashproof", __name__)

    def show() -> Response:
        return jsonify(_figures(environment))

    def extend_answer(response: Response) -> Response:
        if request.path == "/stats/requests" and response.is_json:
            figures = _figures(environment)
            extended = [{"key": key, "data": figures[name]} for key, name in ((_LATENCY, "latency"), (_PLAN, "plan"))]
            response.set_data(web_ui.app.json.dumps({**response.get_json(), "extended_stats": extended}))
        return response

    def refuse_start() -> Response | None:
        if request.path == "/swarm" and environment.parsed_options.autostart:
            return jsonify({"success": False, "message": _BY_ITSELF, "host": environment.host})
        return None

    web_ui.app.before_request(refuse_start)
    face.add_url_rule(PATH, view_func=web_ui.auth_required_if_enabled(show))
    web_ui.app.register_blueprint(face)
    web_ui.app.after_request(extend_answer)
    web_ui.template_args |= {"extended_tabs": _TABS, "extended_tables": _TABLES}


def _figures(environment: Any) -> Mapping[str, list[Row]]:
    live: Live | Together | None = getattr(environment, "flashproof_live", None)
    if live is None:  # not begun
        return {"latency": [{"name": _NOT_HERE}], "plan": [{"name": _NOT_HERE}]}
    return {"latency": live.latencies(), "plan": live.plan()}


def quit_all(environment: Any) -> None:
    """End the run and, where there is one, the web UI: Locust itself leaves it open."""
    environment.runner.quit()
    if environment.web_ui is not None:
        environment.web_ui.stop()
