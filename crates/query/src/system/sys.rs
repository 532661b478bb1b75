//! `sys`: segments, servers and running queries with Druid's columns.

use store::calendar::format_iso;

use super::Resolver;
use super::rows::{Cell, Rows};
use crate::catalog::PastRow;
use crate::service::QueryState;

/// The tables of this schema.
pub const TABLES: [&str; 8] =
    ["lost_batches", "queries", "segments", "server_properties", "server_segments", "servers", "supervisors", "tasks"];

/// The table of that name, in any case.
pub fn table(resolver: &Resolver, name: &str) -> Option<Rows> {
    Some(match name.to_ascii_lowercase().as_str() {
        "segments" => segments(resolver),
        "servers" => servers(resolver),
        "server_segments" => server_segments(resolver),
        "queries" => queries(resolver),
        "lost_batches" => lost_batches(resolver),
        "tasks" => tasks(resolver),
        "supervisors" => Rows::new(
            "supervisor_id text, state text, detailed_state text, healthy long, type text, source text, \
             suspended long, spec text",
        ),
        "server_properties" => Rows::new("server text, service_name text, node_roles text, property text, value text"),
        _ => return None,
    })
}

fn long(value: u64) -> Cell {
    Cell::Long(i64::try_from(value).unwrap_or(i64::MAX))
}

fn segments(resolver: &Resolver) -> Rows {
    let mut rows = Rows::new(
        "segment_id text, datasource text, start text, end text, size long, version text, partition_num long, \
         num_replicas long, num_rows long, is_active long, is_published long, is_available long, is_realtime long, \
         is_overshadowed long, shard_spec text, dimensions text, metrics text, last_compaction_state text, \
         replication_factor long",
    );
    for segment in resolver.catalog.segments() {
        let active = (segment.is_published && !segment.is_overshadowed) || segment.is_realtime;
        rows.push(vec![
            segment.segment_id.into(),
            segment.table.as_ref().into(),
            format_iso(segment.start).into(),
            format_iso(segment.end).into(),
            long(segment.size_bytes),
            segment.version.into(),
            segment.partition_num.into(),
            segment.replicas.into(),
            long(segment.rows),
            i64::from(active).into(),
            i64::from(segment.is_published).into(),
            i64::from(segment.is_available).into(),
            i64::from(segment.is_realtime).into(),
            i64::from(segment.is_overshadowed).into(),
            Cell::Null,
            Cell::Null,
            Cell::Null,
            Cell::Null,
            segment.replicas.into(),
        ]);
    }
    rows
}

fn servers(resolver: &Resolver) -> Rows {
    let mut rows = Rows::new(
        "server text, host text, plaintext_port long, tls_port long, server_type text, tier text, curr_size long, \
         max_size long, storage_size long, is_leader long, start_time text, version text, labels text, \
         available_processors long, total_memory long",
    );
    for server in resolver.catalog.servers() {
        rows.push(vec![
            server.server.into(),
            server.host.into(),
            server.plaintext_port.into(),
            server.tls_port.into(),
            server.server_type.into(),
            server.tier.into(),
            long(server.current_size_bytes),
            long(server.max_size_bytes),
            long(server.current_size_bytes),
            server.is_leader.map(i64::from).into(),
            format_iso(server.start_time).into(),
            server.version.into(),
        ]);
    }
    rows
}

fn server_segments(resolver: &Resolver) -> Rows {
    let mut rows = Rows::new("server text, segment_id text");
    let servers = resolver.catalog.servers();
    let holder = servers.iter().find(|server| server.server_type == "historical").or_else(|| servers.first());
    if let Some(server) = holder {
        for segment in resolver.catalog.segments() {
            rows.push(vec![server.server.as_str().into(), segment.segment_id.into()]);
        }
    }
    rows
}

fn queries(resolver: &Resolver) -> Rows {
    let mut rows = Rows::new(
        "id text, engine text, state text, info text, query_id text, identity text, elapsed_ms long, rows long, \
         sql text, node long, started text, error text",
    );
    for query in &resolver.running {
        let state = match query.state {
            QueryState::Waiting => "ACCEPTED",
            QueryState::Running => "RUNNING",
        };
        rows.push(vec![
            query.query_id.as_str().into(),
            "native".into(),
            state.into(),
            Cell::Null,
            query.query_id.as_str().into(),
            query.identity.as_str().into(),
            long(query.elapsed_ms),
            long(query.rows),
            query.sql.as_str().into(),
            resolver.catalog.node().into(),
        ]);
    }
    for past in resolver.catalog.past_queries() {
        let PastRow { node, id, subject, identity, began, duration_ms, rows: count, error } = past;
        rows.push(vec![
            id.as_str().into(),
            "native".into(),
            outcome(&error).into(),
            Cell::Null,
            id.as_str().into(),
            identity.into(),
            long(duration_ms),
            long(count),
            subject.into(),
            node.into(),
            format_iso(began).into(),
            (!error.is_empty()).then_some(error).into(),
        ]);
    }
    rows
}

fn lost_batches(resolver: &Resolver) -> Rows {
    let mut rows = Rows::new(
        "topic text, partition long, node long, saved_at text, term long, replaced_by_term long, base_offset long, \
         last_offset long, records long, producer_id long, acknowledged text, state text, size_bytes long, path text",
    );
    for lost in resolver.lost() {
        rows.push(vec![
            lost.topic.as_str().into(),
            lost.partition.into(),
            lost.node.into(),
            format_iso(lost.saved_at).into(),
            lost.term.into(),
            lost.replaced_by_term.into(),
            lost.base_offset.into(),
            lost.last_offset.into(),
            lost.records.into(),
            lost.producer_id.into(),
            lost.acknowledged.as_str().into(),
            lost.state.as_str().into(),
            lost.size_bytes.into(),
            lost.path.as_str().into(),
        ]);
    }
    rows
}

fn outcome(error: &str) -> &'static str {
    if error.is_empty() { "SUCCESS" } else { "FAILED" }
}

fn tasks(resolver: &Resolver) -> Rows {
    let mut rows = Rows::new(
        "task_id text, group_id text, type text, datasource text, created_time text, \
         queue_insertion_time text, status text, runner_status text, duration long, location text, host text, \
         plaintext_port long, tls_port long, error_msg text",
    );
    for past in resolver.catalog.past_tasks() {
        let created = format_iso(past.began);
        rows.push(vec![
            past.id.as_str().into(),
            past.id.as_str().into(),
            "seal".into(),
            past.subject.into(),
            created.as_str().into(),
            created.as_str().into(),
            outcome(&past.error).into(),
            "NONE".into(),
            long(past.duration_ms),
            format!("node {}", past.node).into(),
            Cell::Null,
            Cell::Null,
            Cell::Null,
            (!past.error.is_empty()).then_some(past.error).into(),
        ]);
    }
    rows
}
