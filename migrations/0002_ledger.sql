-- The ledger: ids of the messages that were stored, for a table that may not get a unique column of its own
-- (`[once]` with `ledger = "sqs_etl_messages"`). Not needed otherwise. May be run again: it changes nothing that is there.

create table if not exists sqs_etl_messages (
    message_id uuid primary key,
    stored_at  timestamptz not null default now()
);

-- The least that the function's role needs, besides `insert` on the table itself:
--
--     grant insert, select on sqs_etl_messages to sqs_etl;
--
-- Purge, by another role: a message comes back no later than its queue keeps it, which is 14 days at most. (One that is
-- redriven from a dead-letter queue gets a new id.) So older rows do nothing any more:
--
--     delete from sqs_etl_messages where stored_at < now() - interval '15 days';
