"""Hypothesis strategies for remote write 1.0 and 2.0: requests as senders make them, and beside the rules."""

import math
import struct
from typing import Any

from hypothesis import strategies as st
from infrasage.prometheus.v1 import write_pb2
from infrasage.prometheus.v2 import write_pb2 as write_v2_pb2

NOW_MS = 1_775_822_400_000  # 2026-04-10T12:00:00Z
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]

_DAY_MS = 86_400_000
_TEN_MINUTES_MS = 600_000
_times = st.sampled_from(
    [NOW_MS] * 12
    + [NOW_MS - 1, NOW_MS - _DAY_MS, NOW_MS - _DAY_MS - 1, NOW_MS + _TEN_MINUTES_MS, NOW_MS + _TEN_MINUTES_MS + 1]
    + [0, -1, 1, 2**63 - 1, -(2**63), 9_223_372_036_854, 9_223_372_036_855]
)
_values = st.one_of(st.sampled_from([0.0, -0.0, 1.5, math.nan, STALE, math.inf, -math.inf]), st.floats(width=64))
_texts = st.one_of(st.sampled_from(["node", "GET", "été", "a b\n", "x" * 130]), st.text(min_size=1, max_size=8))
_names = st.one_of(st.sampled_from(["code", "le", "method", "été.x", ""] * 3 + ["y" * 110]), st.text(min_size=1, max_size=6))
_metric_names = st.sampled_from(["up", "http_total", "http_bucket", "latency", "latency_sum"])


def _sometimes(draw: st.DrawFn, one_in: int) -> bool:
    return draw(st.integers(1, one_in)) == one_in


@st.composite
def _label_sets(draw: st.DrawFn) -> list[tuple[str, str]]:
    labels = [] if _sometimes(draw, 20) else [("__name__", "" if _sometimes(draw, 20) else draw(_metric_names))]
    if not _sometimes(draw, 4):
        labels.append(("job", draw(st.sampled_from(["node", "api", "" if _sometimes(draw, 10) else "db"]))))
    if draw(st.booleans()):
        labels.append(("instance", draw(st.sampled_from(["a:1", "b:2"]))))
    if _sometimes(draw, 3):
        name = draw(st.sampled_from(["service_name", "service_instance_id"]))
        labels.append((name, draw(st.sampled_from(["shop", "i-1", ""]))))
    others = draw(
        st.lists(st.tuples(_names, _texts), max_size=3, unique_by=None if _sometimes(draw, 8) else lambda pair: pair[0])
    )
    labels += [(name, "" if _sometimes(draw, 30) else value) for name, value in others if name or _sometimes(draw, 10)]
    return draw(st.permutations(labels)) if _sometimes(draw, 3) else labels


def _set_labels(target: Any, labels: list[tuple[str, str]]) -> None:
    for name, value in labels:
        target.labels.add(name=name, value=value)


@st.composite
def _exemplars(draw: st.DrawFn) -> write_pb2.Exemplar:
    exemplar = write_pb2.Exemplar(value=draw(_values), timestamp=draw(_times))
    ids = {
        "trace_id": st.sampled_from(["ab" * 16, "AB" * 16, "0" * 32, "ab", "g" * 32, "+1" * 16]),
        "span_id": st.sampled_from(["cd" * 8, "0" * 16, "x"]),
    }
    for name, values in ids.items():
        if draw(st.booleans()):
            exemplar.labels.add(name=name, value=draw(values))
    _set_labels(exemplar, draw(st.lists(st.tuples(_names, _texts), max_size=2)))
    return exemplar


@st.composite
def histograms(draw: st.DrawFn) -> write_pb2.Histogram:
    """Mostly one that adds up; now and then spoilt."""
    custom = _sometimes(draw, 3)
    is_float = draw(st.booleans())
    made = write_pb2.Histogram(
        sum=draw(_values),
        timestamp=draw(_times),
        schema=-53 if custom else draw(st.integers(-4, 8)),
        reset_hint=draw(st.sampled_from(["UNKNOWN", "YES", "NO", "GAUGE"])),
    )
    counts: st.SearchStrategy[Any] = (
        st.floats(0, 1e6) if is_float and draw(st.booleans()) else st.integers(0, draw(st.sampled_from([9, 10**12])))
    )
    total: Any = 0
    if not custom:
        zero: Any = draw(counts)
        made.zero_threshold = draw(st.sampled_from([0.0, 0.001]))
        if is_float:
            made.zero_count_float = zero
        else:
            made.zero_count_int = zero
        total += zero
    for side in ("negative", "positive") if not custom else ("positive",):
        length = 0
        last: Any = 0
        for n in range(draw(st.integers(0, 3))):
            low = 0 if custom or n else -9
            span = getattr(made, side + "_spans").add(offset=draw(st.integers(low, 9)), length=draw(st.integers(0, 3)))
            length += span.offset + span.length
            for _ in range(span.length):
                count: Any = draw(counts)
                total += count
                if is_float:
                    getattr(made, side + "_counts").append(count)
                else:
                    getattr(made, side + "_deltas").append(count - last)
                    last = count
        if custom:
            made.custom_values.extend([n * 0.5 for n in range(max(0, length - 1 + draw(st.integers(0, 2))))])
    if is_float:
        made.count_float = total
    else:
        made.count_int = total + (5 if math.isnan(made.sum) and draw(st.booleans()) else 0)
    if _sometimes(draw, 3):
        _spoil(draw, made)
    return made


def _spoil(draw: st.DrawFn, made: write_pb2.Histogram) -> None:
    change = draw(st.integers(0, 14))
    odd = draw(st.sampled_from([-1.0, math.nan, math.inf, 9.3e18, 0.25, -0.0]))
    if change == 0:
        made.count_int = draw(st.sampled_from([0, 7, 2**63, 2**64 - 1]))
    elif change == 1:
        made.count_float = odd
    elif change == 2:
        made.positive_deltas.append(draw(st.sampled_from([-1, 2**63 - 1, -(2**63)])))
    elif change == 3:
        made.positive_spans.add(
            offset=draw(st.sampled_from([-1, 0, 2**31 - 1, -(2**31)])), length=draw(st.sampled_from([0, 1, 2**32 - 1]))
        )
    elif change == 4:
        made.schema = draw(st.sampled_from([-5, 9, -53, 0, -(2**31)]))
    elif change == 5:
        made.custom_values.append(draw(st.sampled_from([math.nan, math.inf, -5.0, 1e9])))
    elif change == 6:
        made.zero_count_int = draw(st.sampled_from([0, 1, 2**63]))
    elif change == 7:
        made.zero_count_float = odd
    elif change == 8:
        made.positive_counts.append(odd)
    elif change == 9:
        made.negative_spans.add(offset=3, length=1)
        made.negative_deltas.append(2)
    elif change == 10:
        # A wide gap, on both sides of the limit.
        made.positive_spans.add(offset=draw(st.sampled_from([65_000, 65_535, 65_536, 2**31 - 1])), length=1)
        if made.WhichOneof("count") == "count_float":
            made.positive_counts.append(0)
        else:
            made.positive_deltas.append(-sum(made.positive_deltas))
    elif change == 11:
        made.sum = STALE
    elif change == 12:
        made.positive_spans.insert(0, write_pb2.BucketSpan(offset=draw(st.sampled_from([-(2**31), 2**31 - 1])), length=0))
    elif change == 13:
        del made.positive_spans[:]
    else:
        made.ClearField("count")


@st.composite
def write_requests(draw: st.DrawFn) -> write_pb2.WriteRequest:
    request = write_pb2.WriteRequest()
    for _ in range(draw(st.integers(0, 5))):
        series = request.timeseries.add()
        if len(request.timeseries) > 1 and _sometimes(draw, 3):
            series.labels.extend(request.timeseries[0].labels)
        else:
            _set_labels(series, draw(_label_sets()))
        for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
            series.samples.add(value=draw(_values), timestamp=draw(_times))
        series.exemplars.extend(draw(st.lists(_exemplars(), max_size=2)) if _sometimes(draw, 4) else [])
        series.histograms.extend(draw(st.lists(histograms(), min_size=1, max_size=2)) if _sometimes(draw, 3) else [])
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        request.metadata.add(
            type=draw(st.sampled_from(write_pb2.MetricMetadata.MetricType.values())),
            metric_family_name=draw(st.sampled_from(["up", "http", "latency", "latency_sum", ""])),
            help=draw(st.sampled_from(["", "How long.", "été"])),
            unit=draw(st.sampled_from(["", "seconds"])),
        )
    return request


_starts = st.sampled_from([0, 0, NOW_MS - 5_000, 1, -1, 9_223_372_036_854, 9_223_372_036_855, 2**63 - 1])
_types = st.sampled_from([0, 1, 1, 2, 3, 3, 4, 5, 6, 7, 9, -1])


class _Symbols:
    """A table of texts, and references into it: to texts that are there twice too."""

    def __init__(self, draw: st.DrawFn, request: write_v2_pb2.Request) -> None:
        self.draw = draw
        self.request = request
        if not _sometimes(draw, 30):
            request.symbols.append("été" if _sometimes(draw, 30) else "")
        # Beyond what one byte refers to, now and then.
        request.symbols.extend(f"unused {n}" for n in range(200 if _sometimes(draw, 5) else 0))

    def reference(self, text: str) -> int:
        symbols = self.request.symbols
        if _sometimes(self.draw, 60):
            return self.draw(st.sampled_from([len(symbols) + 7, 2**32 - 1]))
        if text not in symbols or _sometimes(self.draw, 20):
            symbols.append(text)
            return len(symbols) - 1
        return list(symbols).index(text)

    def references(self, labels: list[tuple[str, str]]) -> list[int]:
        made = [self.reference(text) for label in labels for text in label]
        return made[:-1] if _sometimes(self.draw, 30) else made


@st.composite
def requests_v2(draw: st.DrawFn) -> write_v2_pb2.Request:
    request = write_v2_pb2.Request()
    symbols = _Symbols(draw, request)
    for _ in range(draw(st.integers(0, 5))):
        series = request.timeseries.add()
        if len(request.timeseries) > 1 and _sometimes(draw, 3):
            series.labels_refs.extend(request.timeseries[0].labels_refs)
        else:
            series.labels_refs.extend(symbols.references(draw(_label_sets())))
        of_histograms = _sometimes(draw, 3)
        if not of_histograms or _sometimes(draw, 10):
            for _ in range(draw(st.sampled_from([0, 1, 1, 1, 1, 2]))):
                series.samples.add(value=draw(_values), timestamp=draw(_times), start_timestamp=draw(_starts))
        if of_histograms:
            for histogram in draw(st.lists(histograms(), min_size=1, max_size=2)):
                # The fields that 1.0's has too are the same.
                series.histograms.add().ParseFromString(histogram.SerializeToString())
                series.histograms[-1].start_timestamp = draw(_starts)
        for sent in draw(st.lists(_exemplars(), max_size=2)) if _sometimes(draw, 4) else []:
            labels = [(label.name, label.value) for label in sent.labels]
            series.exemplars.add(value=sent.value, timestamp=sent.timestamp, labels_refs=symbols.references(labels))
        if not _sometimes(draw, 4):
            metadata: Any = series.metadata
            metadata.SetInParent()
            metadata.type = draw(_types)
            metadata.help_ref = symbols.reference(draw(st.sampled_from(["", "How long.", "été"])))
            metadata.unit_ref = symbols.reference(draw(st.sampled_from(["", "", "seconds"])))
        if _sometimes(draw, 4):
            series.created_timestamp = draw(_starts)
    return request
