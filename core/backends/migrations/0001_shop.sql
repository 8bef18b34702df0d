-- The record of the shop. Everything here is a projection of the facts in Valkey's stream, except the catalog and
-- the card keys, which begin here. Instants are timestamptz; money is minor units and an ISO 4217 currency.

CREATE TABLE products (
    sku          text PRIMARY KEY CHECK (sku ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    title        text NOT NULL,
    price        bigint NOT NULL CHECK (price >= 0),
    currency     text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    buyer_limit  integer NOT NULL CHECK (buyer_limit > 0),
    hold_ms      bigint NOT NULL CHECK (hold_ms > 0),
    opens_at     timestamptz,
    closes_at    timestamptz,
    low_stock    integer NOT NULL CHECK (low_stock >= 0),
    added_at     timestamptz NOT NULL DEFAULT now(),
    CHECK (closes_at > opens_at)
);

-- One row per uploaded key file. `digest` is a keyed hash over the file's key hashes: the same file is known again
-- when a command that died is run once more. `raised_at` is set when the counter's fact has been projected.
CREATE TABLE imports (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY CHECK (id < 2199023255552), -- key ids stay in 63 bits
    sku         text NOT NULL REFERENCES products,
    units       integer NOT NULL CHECK (units BETWEEN 1 AND 1000000),
    digest      bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    raised_at   timestamptz,
    UNIQUE (sku, digest)
);

-- id = import id · 2^20 + line number. It is known before the row is written, so the sealed key can be bound to it.
CREATE TABLE card_keys (
    id         bigint PRIMARY KEY,
    sku        text NOT NULL REFERENCES products,
    key_hash   bytea NOT NULL,
    sealed     bytea NOT NULL,
    state      text NOT NULL DEFAULT 'free' CHECK (state IN ('free', 'sold', 'void'))
);
CREATE UNIQUE INDEX card_keys_hash ON card_keys (key_hash);
CREATE INDEX card_keys_free ON card_keys (sku, id) WHERE state = 'free';

CREATE TABLE orders (
    id         uuid PRIMARY KEY,
    seq        bigint GENERATED ALWAYS AS IDENTITY,
    shard      integer NOT NULL,
    sku        text NOT NULL,
    buyer      text NOT NULL,
    quantity   integer NOT NULL CHECK (quantity > 0),
    amount     bigint NOT NULL CHECK (amount >= 0),
    currency   text NOT NULL,
    state      text NOT NULL,
    placed_at  timestamptz NOT NULL,
    pay_by     timestamptz NOT NULL
) WITH (fillfactor = 70);
-- No index names `state`, not even in a predicate: so each of an order's moves is a heap-only update in the room that
-- fillfactor leaves, and touches no index.

-- Paid orders that found no free key. Empty as long as stock is right; the cure reads it.
CREATE TABLE owed (
    order_id   uuid PRIMARY KEY,
    since      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE payments (
    gateway      text NOT NULL,
    event_id     text NOT NULL,
    order_id     uuid NOT NULL,
    amount       bigint NOT NULL,
    currency     text NOT NULL,
    paid_at      timestamptz NOT NULL,
    applied      text NOT NULL CHECK (applied IN ('first', 'late', 'refund_due')),
    refusal      text NOT NULL DEFAULT '',
    recorded_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (gateway, event_id)
);
CREATE INDEX payments_order ON payments (order_id);

-- The sale of a key, said twice: one key goes to one line of one order, and a line gets one key. No foreign keys: the
-- claim locks and moves both rows in the very statement that inserts here, and looking again costs a fifth of it.
CREATE TABLE deliveries (
    key_id        bigint PRIMARY KEY,
    order_id      uuid NOT NULL,
    line          integer NOT NULL CHECK (line > 0),
    delivered_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (order_id, line)
);

-- Every move of every order, in the order of the journal: (entry_ms, entry_seq) names the stream entry, record the
-- place in it. A delivery carries the place of the payment it answers, or none when the cure brought it.
CREATE TABLE order_events (
    seq        bigint GENERATED ALWAYS AS IDENTITY,
    order_id   uuid NOT NULL,
    before     text,
    after      text NOT NULL,
    at         timestamptz NOT NULL,
    entry_ms   bigint,
    entry_seq  bigint,
    record     integer,
    PRIMARY KEY (order_id, seq)
);

-- Where each shard's projector stands, moved by compare-and-set in the transaction that holds the rows.
CREATE TABLE cursors (
    shard      integer PRIMARY KEY,
    entry_ms   bigint NOT NULL DEFAULT 0,
    entry_seq  bigint NOT NULL DEFAULT 0,
    epoch      bigint NOT NULL DEFAULT 0,
    opened_at  timestamptz
);
INSERT INTO cursors (shard) VALUES (0);

-- Records that could not be believed or applied. They hold no card key: facts never do.
CREATE TABLE quarantine (
    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shard      integer NOT NULL,
    entry_ms   bigint NOT NULL,
    entry_seq  bigint NOT NULL,
    record     integer NOT NULL,
    reason     text NOT NULL,
    raw        bytea NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    UNIQUE (shard, entry_ms, entry_seq, record)
);
