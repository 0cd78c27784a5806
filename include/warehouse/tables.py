"""The tables that are not built from SQL: what sources land in `raw`, and what the sync engine remembers in `sync`.

`raw` has one table per kind of record, whatever the system it came from; the column `source` says which. A source
is one Python file because of that: no SQL changes when one is added. `loaded_at` is the start of the load (UTC) and
the watermark of everything downstream. All times are UTC without an offset.

`sync` is append-only: nothing here is ever updated, the newest row of a key is what holds. An erasure deletes rows, and
`include/sync/compaction.py` those that are old and overtaken.

`core.touched_*` are the keys that a build works out anew (`incremental.py`); they stay until the next build begins.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Date, DateTime, Double, MetaData, Table, Text

metadata = MetaData()

_TYPES = {"date": Date, "text": Text, "bigint": BigInteger, "double": Double, "boolean": Boolean, "timestamp": DateTime}


def _table(name: str, columns: str) -> Table:
    """Declare `schema.table` from lines of `column type  comment`; every column may be null."""
    schema, table = name.split(".")
    parsed = []
    for line in columns.strip().splitlines():
        column, kind, *comment = line.split(None, 2)
        parsed.append(Column(column, _TYPES[kind](), comment=comment[0] if comment else None))
    return Table(table, metadata, *parsed, schema=schema)


def recorded_columns() -> dict[str, dict[str, str]]:
    """Every table with its columns in the words above, for an engine that SQLAlchemy makes no tables for."""
    words = {kind: word for word, kind in _TYPES.items()}
    return {
        name: {column.name: words[type(column.type)] for column in table.columns}
        for name, table in metadata.tables.items()
    }


_table(
    "raw.contacts",
    """
    source text       which source told us
    contact_id text   the system's own id
    email text        as the system holds it
    phone text        E.164 where the source could tell the country, else as held
    user_id text      the login of the shop, where the system knows it
    first_name text
    last_name text
    country text      ISO 3166 alpha-2
    created_at timestamp
    updated_at timestamp  version of the record
    is_deleted boolean
    loaded_at timestamp
    """,
)
_table(
    "raw.contact_identifiers",
    """
    source text
    contact_id text
    kind text         email, phone, user_id, visitor_id or merged_contact_id (an id that was merged into contact_id)
    value text
    updated_at timestamp  version of the contact this belongs to
    loaded_at timestamp
    """,
)
_table(
    "raw.consents",
    """
    source text
    contact_id text
    email text
    channel text      email or ads
    status text       granted, denied or unknown
    reason text
    changed_at timestamp
    loaded_at timestamp
    """,
)
_table(
    "raw.suppressions",
    """
    source text
    kind text         email, domain, phone or contact_id
    value text
    channel text      email, ads or all
    reason text       opted_out, bounced, complained, competitors, ...
    is_active boolean the newest row of (source, kind, value, channel, reason) decides
    changed_at timestamp
    loaded_at timestamp
    """,
)
_table(
    "raw.orders",
    """
    source text
    order_id text       the system's own id
    transaction_id text the shop's number, the same in every system that reports the order
    contact_id text
    email text
    phone text
    user_id text
    visitor_id text
    status text         placed, paid, fulfilled, returned, cancelled or failed (payment failed for good)
    currency text
    total_amount double
    is_test boolean
    ordered_at timestamp
    updated_at timestamp
    loaded_at timestamp
    """,
)
_table(
    "raw.order_items",
    """
    source text
    order_id text
    line_id text
    sku text
    name text
    quantity bigint
    price double
    currency text
    updated_at timestamp  version of the order this belongs to
    loaded_at timestamp
    """,
)
_table(
    "raw.carts",
    """
    source text
    cart_id text
    contact_id text
    email text
    user_id text
    visitor_id text
    status text         open, ordered, emptied or deleted
    currency text
    total_amount double
    cart_url text
    created_at timestamp
    updated_at timestamp  last activity of the cart
    loaded_at timestamp
    """,
)
_table(
    "raw.cart_items",
    """
    source text
    cart_id text
    line_id text
    sku text
    name text
    quantity bigint
    price double
    currency text
    image_url text
    product_url text
    updated_at timestamp  version of the cart this belongs to
    loaded_at timestamp
    """,
)
_table(
    "raw.subscriptions",
    """
    source text
    subscription_id text
    contact_id text
    email text
    user_id text
    kind text           paid or email
    plan text
    status text         active, past_due (payment still retried), cancelled, expired, failed (retries over)
    currency text
    amount double
    started_at timestamp
    ended_at timestamp  end of the period that is paid for; null while it has none
    cancelled_at timestamp
    updated_at timestamp
    is_deleted boolean
    loaded_at timestamp
    """,
)
_table(
    "raw.engagement",
    """
    source text
    engagement_id text
    contact_id text
    email text
    visitor_id text
    channel text        email or ads
    type text           sent, delivered, open, click, bounce, complaint or unsubscribe
    campaign_id text
    is_bot boolean
    occurred_at timestamp
    loaded_at timestamp
    """,
)
_table(
    "raw.events",
    """
    source text
    event_key text      the same for every copy of an event, and no other's of any source
    event_name text     in GA4's names
    visitor_id text
    user_id text
    email text
    session_id text     unique only with visitor_id
    page_location text
    page_referrer text
    page_title text
    transaction_id text
    currency text
    browser text        agent name
    device_category text
    country text
    traffic_type text   internal for staff
    ads_storage text    Yes, No or null: the browser's consent for ads (granted, denied, true, false, 1, 0 too)
    analytics_storage text
    platform text
    source_file text
    session_number bigint
    engagement_ms bigint  engagement time of this event
    value double
    is_engaged boolean  the source's own flag for the visit
    occurred_at timestamp
    loaded_at timestamp
    """,
)
_table(
    "raw.event_items",
    """
    source text
    event_key text
    item_index bigint   from 0
    sku text
    name text
    category text
    brand text
    image_url text
    product_url text
    quantity bigint
    price double
    loaded_at timestamp
    """,
)
_table(
    "raw.rejected_rows",
    """
    source text
    table_name text     the raw table it was meant for
    location text       file and line, or record id
    reason text
    raw_row text        the row as it came, as JSON or text
    loaded_at timestamp
    """,
)

_table(
    "sync.segment_builds",
    """
    audience text
    run_id text
    matched bigint
    as_of timestamp
    built_at timestamp
    """,
)
_table(
    "sync.gate_results",
    """
    audience text
    run_id text
    failures text       sentences, one a line; empty when it passed
    matched bigint
    is_passed boolean
    as_of timestamp
    checked_at timestamp
    """,
)
_table(
    "sync.opt_outs",
    """
    destination text    the tool that told us
    list_name text      the list there; null: the tool has no such lists, or it was read before lists were noted
    kind text           email or phone; hashed: of somebody who was erased; read: when a list was last read
    value text
    channel text        email or ads
    reason text         opted_out, bounced or complained
    is_active boolean   false when that tool says the person came back
    occurred_at timestamp
    read_at timestamp
    """,
)
_table(
    "sync.plans",
    """
    plan_id text
    audience text
    destination text
    list_name text
    run_id text
    matched bigint
    members bigint
    adds bigint
    updates bigint
    removes bigint
    unchanged bigint
    refused bigint      members the destination refused and whose row has not changed since
    refreshes bigint    unchanged members sent again, because the destination would forget them
    held bigint         removals that wait, because the list would fall under the destination's minimum
    ledger_sequence bigint  newest row of the target's ledger when it was planned; null: there was none
    present bigint      members on the list when it was planned
    verdict text        clear, or ask: it waits for a human
    reasons text        JSON [{kind, people, of, text}]: why it waits
    options text        JSON: what the audience file said to the destination; no secret is in it
    urgent_of text      the plan that waits while these removals do not; null for every other plan
    as_of timestamp
    created_at timestamp
    """,
)
_table(
    "sync.approvals",
    """
    plan_id text
    audience text
    destination text
    decision text       asked, approved, new_bound (not this plan, but one within the bounds), rejected or unanswered
    decided_by text     the Airflow user who answered; null where nobody did
    max_add double      approved once, as a share of the list; null: the audience's own
    max_remove double
    decided_at timestamp
    """,
)
_table(
    "sync.plan_rows",
    """
    plan_id text
    row_number bigint   order of sending: removes first
    action text         add, update, refresh or remove
    profile_id text
    member_key text     the identifier that stands for the member at this destination
    identifiers text    JSON {kind: [values]}: exactly what is sent
    fields text         JSON {merge field: value}; null for removes
    payload_hash text
    """,
)
_table(
    "sync.exclusions",
    """
    plan_id text
    audience text
    destination text
    profile_id text
    step text           reachable, consent, suppression, frequency_cap, priority, holdout
    reason text
    as_of timestamp
    """,
)
_table(
    "sync.ledger",
    """
    sequence bigint     order of acknowledgement, growing
    audience text
    destination text
    list_id text        the platform's id of the list
    plan_id text
    action text         add, update, refresh or remove
    profile_id text
    member_key text
    identifiers text    JSON {kind: [values]}: exactly what was sent
    payload_hash text
    status text         accepted, rejected, retry, pending, unattributed, intended or unknown (docs/destinations.md)
    reason text
    request_id text
    acknowledged_at timestamp
    """,
)
_table(
    "sync.requests",
    """
    request_id text
    audience text
    destination text
    plan_id text
    action text
    status text         pending, succeeded, partial or failed; the newest row of a request holds
    detail text         counts by reason
    row_count bigint
    accepted_count bigint
    rejected_count bigint
    recorded_at timestamp
    """,
)

_table(
    "sync.audits",
    """
    audit_id text       stands as plan_id on the rows it appended to the ledger
    audience text
    destination text
    list_id text
    outcome text        compared, no_read_back, or moved (something was sent meanwhile; nothing was concluded)
    listed bigint       members that were read back
    members bigint      members by the ledger, before it was set right
    lost bigint         in the ledger and not on the list
    opted_out bigint    of those, who said no at the tool
    returned bigint     on the list again though we took them off
    strangers bigint    on the list and never ours
    began_at timestamp
    audited_at timestamp
    """,
)
_table(
    "sync.destination_stats",
    """
    audience text
    destination text
    list_id text
    day date
    size bigint         as the platform counts or estimates it, else as it was read back; null where it tells nothing
    members bigint      by the ledger
    match_rate double   share of the members whom the platform knows, 0 to 1; null where it does not say
    newest_change_at timestamp  the newest change that was accepted
    recorded_at timestamp
    """,
)

_table(
    "sync.erasure_requests",
    """
    request_id text
    request_hash text   salted hash of the identifier that was named
    kind text           email, phone, user_id, visitor_id or contact_id
    via text            who passed it on: a command, or the source that said so
    requested_at timestamp
    """,
)
_table(
    "sync.erasure_keys",
    """
    request_id text     rows are here only while a request is open, and deleted with it
    kind text           node, email, phone, user_id, visitor_id, contact, profile, event, order, ..., sent
    value text
    """,
)
_table(
    "sync.erased_hashes",
    """
    identifier_hash text  salted hash of an identifier (its node) that may not come back by an import
    request_id text
    erased_at timestamp
    """,
)
_table(
    "sync.erasure_receipts",
    """
    request_id text
    request_hash text
    system text         warehouse, a destination, or request: the whole of it
    outcome text        erased, removed (the platform has no call to erase), open, done, ambiguous; the newest holds
    lists bigint        lists she was taken off
    rows bigint         rows deleted from the warehouse, or members taken off
    is_verified boolean whether it was looked up afterwards; null where that cannot be done
    detail text         what is missing, in words
    requested_at timestamp
    recorded_at timestamp
    """,
)

_table(
    "sync.builds",
    """
    build_id text
    status text         begun or finished
    is_full boolean     everything was built anew
    as_of timestamp
    fingerprint text    of the models, the settings and the engine
    recorded_at timestamp
    """,
)
_table(
    "sync.build_loads",
    """
    build_id text
    table_name text
    source text
    loaded_until timestamp  the newest load of this source that the build took in
    """,
)
_table(
    "core.former_names",
    """
    profile_id text     a name that no profile had any more after a build
    node text           an identifier it had, the one it was named after where that is still somebody's
    gone_at timestamp   as_of of that build
    """,
)
_table("core.touched_records", "record text  what its identifiers have in common\nnode text")
_table("core.touched_events", "event_key text")
_table("core.touched_days", "day date")
_table("core.touched_visits", "session_key text")
_table(
    "core.touched_walks",
    """
    walk text  <visitor_id>.<day>: what a browser did on that day without a session id is cut into visits anew
    visitor_id text
    day date
    """,
)
_table("core.touched_nodes", "node text")
_table("core.touched_visitors", "visitor_id text")
_table("core.touched_profiles", "profile_id text")
