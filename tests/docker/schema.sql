-- The tables of a node's database as far as backups see them, written from their description: names, types and keys that
-- pyaleph's have. Indexes and foreign keys stand in constraints.sql, which is run once the rows are there.

create table chain_txs (
    hash varchar not null,
    chain varchar not null,
    height integer not null,
    datetime timestamptz not null,
    publisher varchar not null,
    protocol varchar not null,
    protocol_version integer not null,
    content jsonb not null
);

create table messages (
    item_hash varchar not null,
    type varchar not null,
    chain varchar not null,
    sender varchar not null,
    signature varchar,
    item_type varchar not null,
    item_content varchar,
    content jsonb not null,
    time timestamptz not null,
    channel varchar,
    size integer not null,
    status varchar not null default 'processed',
    reception_time timestamptz not null,
    owner varchar,
    content_type varchar,
    content_ref varchar,
    content_key varchar,
    content_item_hash varchar,
    first_confirmed_at timestamptz,
    first_confirmed_height bigint,
    payment_type varchar,
    tags varchar[]
);

create table message_status (
    item_hash varchar not null,
    status varchar not null,
    reception_time timestamptz not null
);

create table message_confirmations (
    id bigserial,
    item_hash varchar not null,
    tx_hash varchar not null
);

create table files (
    hash varchar not null,
    size bigint not null,
    type varchar not null
);

create table file_pins (
    id bigserial,
    file_hash varchar not null,
    created timestamptz not null,
    type varchar not null,
    tx_hash varchar,
    owner varchar,
    item_hash varchar,
    ref varchar,
    delete_by timestamptz
);

create table file_tags (
    tag varchar not null,
    owner varchar not null,
    file_hash varchar not null,
    last_updated timestamptz not null
);

create table posts (
    item_hash varchar not null,
    owner varchar not null,
    type varchar,
    ref varchar,
    amends varchar,
    channel varchar,
    content jsonb not null,
    creation_datetime timestamptz not null,
    latest_amend varchar,
    tags varchar[]
);

create table aggregate_elements (
    item_hash varchar not null,
    key varchar not null,
    owner varchar not null,
    content jsonb not null,
    creation_datetime timestamptz not null
);

create table aggregates (
    key varchar not null,
    owner varchar not null,
    content jsonb not null,
    creation_datetime timestamptz not null,
    last_revision_hash varchar not null,
    dirty boolean not null
);

create table balances (
    id bigserial,
    address varchar not null,
    chain varchar not null,
    dapp varchar,
    eth_height integer not null,
    balance numeric not null,
    last_update timestamptz not null default now()
);

create table credit_balances (
    address varchar not null,
    credit_ref varchar not null,
    credit_index integer not null,
    amount_remaining bigint not null,
    expiration_date timestamptz,
    message_timestamp timestamptz not null,
    last_update timestamptz not null default now()
);

create table account_costs (
    id bigserial,
    owner varchar not null,
    item_hash varchar not null,
    type varchar not null,
    name varchar not null,
    ref varchar,
    payment_type varchar not null,
    cost_hold numeric not null,
    cost_stream numeric not null,
    cost_credit numeric not null default 0
);

create table crn_metrics (
    id bigserial,
    measured_at timestamptz not null,
    item_hash varchar not null,
    node_id varchar not null,
    base_latency double precision,
    full_check_latency double precision
);

create table peers (
    peer_id varchar not null,
    peer_type varchar not null,
    address varchar not null,
    source varchar not null,
    last_seen timestamptz not null
);

create table pending_messages (
    id bigserial,
    item_hash varchar not null,
    type varchar not null,
    sender varchar not null,
    item_content varchar,
    content jsonb,
    time timestamptz not null,
    next_attempt timestamptz not null,
    retries integer not null,
    fetched boolean not null
);

create table alembic_version (
    version_num varchar(32) not null
);
