"""Read the Prometheus text from /metrics of a running collector into the snapshot that was written.

Invariants:
1. A snapshot that was written is read back, whatever tenants are called (test_what_was_written_is_read_back).
2. Text that is not Prometheus text raises ValueError and nothing else (test_other_text_is_a_value_error).

Buckets of histograms are left out: they are most of the lines, and nothing here needs them.
"""

from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from collector.telemetry.aggregate import Family, Snapshot

_BUCKET: Final = "_bucket{"


def read_text(text: str) -> Snapshot:
    """Return the families, without the buckets of histograms. Raises ValueError."""
    # Not splitlines: a label may have other characters that end a line in Unicode.
    lines = "\n".join(line for line in text.split("\n") if _BUCKET not in line.partition(" ")[0])
    try:
        return [
            Family(
                metric.name,
                metric.documentation,
                metric.type,
                {(sample.name, tuple(sorted(sample.labels.items()))): float(sample.value) for sample in metric.samples},
            )
            for metric in text_string_to_metric_families(lines)
        ]
    except (ValueError, LookupError, OverflowError) as error:  # the library indexes what is not there
        raise ValueError(f"not Prometheus text: {error}") from None
