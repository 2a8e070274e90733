-- Keys, indexes, triggers, views and functions of the tables of schema.sql.

alter table chain_txs add primary key (hash);
alter table messages add primary key (item_hash);
alter table message_status add primary key (item_hash);
alter table message_confirmations add primary key (id), add unique (item_hash, tx_hash),
    add foreign key (item_hash) references messages on delete cascade,
    add foreign key (tx_hash) references chain_txs on delete cascade;
alter table files add primary key (hash);
alter table file_pins add primary key (id), add unique (item_hash, type), add foreign key (file_hash) references files;
alter table file_tags add primary key (tag), add foreign key (file_hash) references files;
alter table posts add primary key (item_hash), add foreign key (amends) references posts;
alter table aggregate_elements add primary key (item_hash);
alter table aggregates add primary key (key, owner), add foreign key (last_revision_hash) references aggregate_elements;
alter table balances add primary key (id), add constraint balances_address_chain_dapp_uindex unique (address, chain, dapp);
alter table credit_balances add primary key (address, credit_ref, credit_index);
alter table account_costs add primary key (id), add foreign key (item_hash) references messages on delete cascade;
alter table crn_metrics add primary key (id, measured_at);
alter table ccn_metrics add primary key (id, measured_at);
alter table message_counts add primary key (type, status);
alter table peers add primary key (peer_id, peer_type);
alter table pending_messages add primary key (id);
alter table alembic_version add primary key (version_num);

create index ix_messages_sender on messages (sender);
create index ix_messages_time on messages (time);
create index ix_file_pins_file_hash on file_pins (file_hash);
create index ix_file_pins_owner on file_pins (owner) where owner is not null;
create index ix_file_pins_delete_by on file_pins (delete_by) where delete_by is not null;
create index ix_posts_owner on posts (owner);
create index ix_key_owner on aggregate_elements (key, owner);
create index ix_crn_metrics_measured_at on crn_metrics (measured_at);

create index ix_ccn_metrics_node on ccn_metrics (node_id, measured_at desc);
create index ix_posts_content_trgm on posts using gin ((content ->> 'body') gin_trgm_ops);
create index ix_messages_sender_trgm on messages using gin (sender gin_trgm_ops);

create function is_expired(moment timestamptz) returns boolean language sql stable as $$
    select moment < now()
$$;

create view address_stats as
    select sender as address, type, count(*) as nb_messages from messages group by sender, type;

create materialized view address_stats_mat_view as select * from address_stats;
create unique index ix_address_type on address_stats_mat_view (address, type);

create materialized view senders_mat_view as select address, sum(nb_messages) as messages from address_stats_mat_view group by address;
create unique index ix_senders on senders_mat_view (address);
create materialized view empty_mat_view as select * from senders_mat_view with no data;

insert into message_counts select m.type, s.status, count(*) from message_status s join messages m using (item_hash) group by 1, 2;

-- The bodies hold what a reader of dumps could take for something else.
create function count_messages() returns trigger language plpgsql as $body$
declare
    said text := $$
COPY public.files (hash, size, type) FROM stdin;
CREATE EXTENSION nothing_that_exists;
\.
$$;
begin
    insert into message_counts as c select m.type, n.status, count(*) from added n join messages m using (item_hash) group by 1, 2
    on conflict (type, status) do update set count = c.count + excluded.count;
    return null;
end
$body$;

create trigger message_counts_added after insert on message_status
    referencing new table as added for each statement execute function count_messages();

create function confirm_first() returns trigger language plpgsql as $$
begin
    update messages m set first_confirmed_at = t.datetime, first_confirmed_height = t.height
        from chain_txs t where m.item_hash = new.item_hash and t.hash = new.tx_hash
            and (m.first_confirmed_height is null or m.first_confirmed_height > t.height);
    return new;
end
$$;

create trigger first_confirmed after insert on message_confirmations for each row execute function confirm_first();
