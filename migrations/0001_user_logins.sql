-- The table of the built-in contract (contract.toml). May be run again: it changes nothing that is there.

create table if not exists user_logins (
    -- The SQS message's id: unique, so that a message that is delivered twice is stored once.
    message_id       uuid primary key,
    user_id          varchar(128),
    device_type      varchar(32),
    masked_ip        varchar(256),
    masked_device_id varchar(256),
    locale           varchar(32),
    app_version      integer,
    create_date      date
);

-- The least that the function's role needs, besides `connect` on the database and `usage` on the schema:
--
--     grant insert, select (message_id) on user_logins to sqs_etl;
--
-- `on conflict (message_id) do nothing` and the check that no row was dropped read that one column, hence the `select`. The function never reads, changes
-- or deletes a row otherwise.
