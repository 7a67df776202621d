"""Tags (field number << 3 | wire type) of the internal record: infrasage.v1.TelemetryBatch, TelemetryRecord and Group.

The tags of a resource, its groups and their items are OTLP's own (opentelemetry-proto, ResourceLogs and ScopeLogs), so that a
message is also an export request.
"""

from typing import Final

# A record in a TelemetryBatch, which is a resource in an export request.
RECORD: Final = 0x0A
# Fields of a TelemetryRecord.
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
# Fields of a Group.
SCOPE: Final = 0x0A
ITEM: Final = 0x12
SCOPE_SCHEMA_URL: Final = 0x1A

# The version of records that have this form.
RECORD_VERSION: Final = 2
