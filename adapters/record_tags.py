"""Tags (field number << 3 | wire type) of the internal record: infrasage.v1.TelemetryBatch, TelemetryRecord and Group.

Those of a resource, its groups and their items are OTLP's own (opentelemetry-proto, ResourceLogs and ScopeLogs), so that a
message is an export request, too.
"""

from typing import Final

# Of a TelemetryBatch: a record. Of an export request: a resource.
RECORD: Final = 0x0A
# Of a TelemetryRecord.
RESOURCE: Final = 0x0A
GROUP: Final = 0x12
RESOURCE_SCHEMA_URL: Final = 0x1A
VERSION: Final = 8096
TENANT: Final = 8010
SOURCE: Final = 8016
TYPE: Final = 8024
RECEIVED: Final = 8033
BATCH_ID: Final = 8042
SERVICE: Final = 8050
BATCH_PART: Final = 8056
ITEM_COUNT: Final = 8064
RECEIPT: Final = 8074
FINGERPRINT: Final = 8082
REPEATED_ITEMS: Final = 8088
# Of a Group.
SCOPE: Final = 0x0A
ITEM: Final = 0x12
SCOPE_SCHEMA_URL: Final = 0x1A

# The version of records that have this form.
RECORD_VERSION: Final = 2
