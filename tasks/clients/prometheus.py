"""Prometheus: instant and range queries as long pandas frames."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

TIMEOUT_S = 5.0
"""A query of a tick takes milliseconds; a Prometheus that needs longer is overloaded, and the tick must go on."""
MAX_POINTS = 10_000
"""Of one series in one answer: Prometheus refuses more than 11,000."""


class PrometheusError(Exception):
    """A query could not be answered; the text names the URL, the cause and the remedy."""


class Prometheus:
    """Queries of one Prometheus, or of what speaks its API; safe to share between threads."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        from prometheus_api_client import PrometheusConnect
        from urllib3.util.retry import Retry

        self._url = url
        # one quick retry of a connection; the client's own default is three, with a second's backoff and more between
        self._connect = PrometheusConnect(url, timeout=timeout_s, retry=Retry(total=1, backoff_factor=0.1))

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(self, *_: object) -> None:
        self._connect.close()

    def instant(self, query: str, at: float) -> pd.DataFrame:
        """One row a series: its labels as columns, and ``value``. No series: no row, and the column ``value`` only.

        Raises:
            PrometheusError: unreachable, a query that it refuses, an answer that is none.
        """
        series = self._ask(query, lambda: self._connect.custom_query(query, params={"time": at}))
        frame = pd.DataFrame([one["metric"] for one in series], dtype=object)
        frame["value"] = np.array([one["value"][1] for one in series], dtype=float)
        return frame

    def history(self, query: str, end: float, span_s: float, step_s: float) -> pd.DataFrame:
        """One row a series and bin: its labels as columns, ``time`` (Unix s, end of the bin) and ``value``.

        The bins end at ``end``, ``end - step_s``, ... and go back at least ``span_s``. A bin without a sample has no
        row.

        Raises:
            PrometheusError: as ``instant``.
        """
        bins = math.ceil(span_s / step_s)
        series = []
        for last in range(bins, -1, -MAX_POINTS):
            first = max(0, last - MAX_POINTS + 1)
            series += self._ask_range(query, end - (bins - first) * step_s, end - (bins - last) * step_s, step_s)
        return _long(series)

    def _ask_range(self, query: str, start: float, stop: float, step_s: float) -> list[dict[str, Any]]:
        first, last = (datetime.fromtimestamp(time, UTC) for time in (start, stop))
        # the client rounds times to whole seconds, which would shift the bins: the exact ones override them
        exact = {"start": start, "end": stop}
        return self._ask(query, lambda: self._connect.custom_query_range(query, first, last, str(step_s), params=exact))

    def _ask(self, query: str, ask: Any) -> list[dict[str, Any]]:
        from prometheus_api_client.exceptions import PrometheusApiClientException
        from requests import JSONDecodeError, RequestException

        try:
            answer: list[dict[str, Any]] = ask()
            return answer
        except PrometheusApiClientException as error:
            raise PrometheusError(f"{self._url} refuses {_short(query)}: {error}; try it in its UI") from error
        except (JSONDecodeError, KeyError, TypeError) as error:
            raise PrometheusError(
                f"{self._url} does not speak Prometheus' API; check metrics.prometheus_url"
            ) from error
        except RequestException as error:
            cause = type(error).__name__
            raise PrometheusError(
                f"{self._url} does not answer ({cause}); check that it runs and metrics.prometheus_url"
            ) from error


def _long(series: list[dict[str, Any]]) -> pd.DataFrame:
    """The series below each other: ``time``, ``value`` and a column a label."""
    points = [np.array(one["values"], dtype=float) for one in series]
    times, values = np.concatenate([np.empty((0, 2)), *points]).T
    frame = pd.DataFrame({"time": times, "value": values})
    for label in sorted({label for one in series for label in one["metric"]}):
        texts = np.array([one["metric"].get(label, math.nan) for one in series], dtype=object)
        frame[label] = np.repeat(texts, [len(one) for one in points])
    return frame


def _short(query: str) -> str:
    return query if len(query) <= 80 else query[:77] + "..."
