//! One query from request to stream.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::{displayable, execute_stream};
use datafusion::sql::sqlparser::ast::Query;
use futures::{StreamExt, stream};
use serde_json::json;
use store::engine::Limits;
use tokio::time::{Instant, timeout_at};

use super::Inner;
use super::context::QueryContext;
use super::registry::Entry;
use super::stream::{Guard, batches};
use crate::control::{CancelHandle, cancelled, timed_out};
use crate::error::QueryError;
use crate::limits::QUEUE_FACTOR;
use crate::plan::errors::from_datafusion;
use crate::plan::{self, QueryPool};
use crate::request::{Dialect, QueryRequest};
use crate::result::{Description, QueryStream, ResultColumn, StatementTag, column_of, outgoing};
use crate::statement::{self, Body, Session};
use crate::system::Resolver;

/// A planned statement and what its columns will be called.
struct Planned {
    plan: LogicalPlan,
    columns: Vec<ResultColumn>,
    schema: SchemaRef,
}

impl Inner {
    pub async fn run(&self, request: QueryRequest) -> Result<QueryStream, QueryError> {
        let parsed = statement::parse(&request.sql, request.dialect)?;
        let context = QueryContext::read(&request, &parsed.settings, &self.limits)?;
        let query_id = context.query_id.clone().unwrap_or_else(|| fresh_id(context.session.now_ms));
        let (query, explain) = match parsed.body {
            Body::Query(query) => (query, None),
            Body::Explain { query, analyze } => (query, Some(analyze)),
            other => return Ok(answer_at_once(other, &context, query_id)),
        };
        let most = self.limits.concurrent_max.max(1) * (1 + QUEUE_FACTOR);
        let entry = self.registry.add(query_id.clone(), request.sql.clone(), request.identity.clone(), most)?;
        let deadline = Instant::now() + Duration::from_millis(context.timeout_ms);
        let permit = self.wait_for_slot(&entry, deadline, context.timeout_ms).await?;
        let state = self.planner.state();
        let mut query = query;
        statement::bind(&mut query, &request.parameters, context.session.zone)?;
        let guard = Guard::new(entry, permit, deadline, context.timeout_ms);
        let patience = deadline.saturating_duration_since(Instant::now());
        let prepare = self.catalog.prepare(statement::table_names(&query), context.consistency, patience);
        let prepared = guard.watch(prepare).await??;
        let warnings = prepared.warnings.clone();
        let resolver = self.resolver(request.dialect, guard.cancel()).with(prepared);
        let planning = async { plan_query(state, &resolver, query, &context) };
        let planned = guard.watch(planning).await??;
        if explain.is_some() {
            let text = explain_text(state, &planned.plan).await?;
            let (schema, batch) = explain_answer(&text, &resolver, request.dialect)?;
            return Ok(finished(query_id, StatementTag::Explain, schema, batch, context.session.zone));
        }
        let physical = guard.watch(plan::physical(state, &planned.plan)).await??;
        let pool = QueryPool::new(self.limits.query_memory_bytes, Arc::clone(&self.memory));
        let running = execute_stream(physical, self.planner.task(Arc::new(pool))?).map_err(from_datafusion)?;
        Ok(QueryStream {
            query_id,
            tag: StatementTag::Select,
            columns: planned.columns,
            schema: Arc::clone(&planned.schema),
            batches: batches(running, planned.schema, guard),
            time_zone: context.session.zone,
            warnings,
        })
    }

    pub fn describe(
        &self,
        request: &QueryRequest,
        parameter_types: &[Option<DataType>],
    ) -> Result<Description, QueryError> {
        let parsed = statement::parse(&request.sql, request.dialect)?;
        let context = QueryContext::read(request, &parsed.settings, &self.limits)?;
        let (query, tag) = match parsed.body {
            Body::Query(query) => (query, StatementTag::Select),
            Body::Explain { .. } => {
                let schema = explain_schema(request.dialect);
                let columns = schema.fields().iter().map(|field| column_of(field, field.name().clone())).collect();
                return Ok(Description { tag: StatementTag::Explain, columns, parameters: vec![] });
            }
            other => {
                let answer = answer_at_once(other, &context, String::new());
                return Ok(Description { tag: answer.tag, columns: answer.columns, parameters: vec![] });
            }
        };
        let state = self.planner.state();
        let resolver = self.resolver(request.dialect, &CancelHandle::default());
        let declared = |at: usize| parameter_types.get(at).cloned().flatten();
        let parameters: Vec<DataType> = (0..parsed.parameters)
            .map(|at| declared(at).unwrap_or_else(|| guess_parameter(state, &resolver, &query, &context, at)))
            .collect();
        let mut query = query;
        let values: Vec<_> = parameters.iter().map(statement::example_of).collect();
        statement::bind(&mut query, &values, context.session.zone)?;
        let planned = plan_query(state, &resolver, query, &context)?;
        Ok(Description { tag, columns: planned.columns, parameters })
    }

    fn resolver(&self, dialect: Dialect, cancel: &CancelHandle) -> Resolver {
        let limits = Limits { memory_bytes: self.limits.query_memory_bytes, cancel: cancel.engine() };
        Resolver::new(Arc::clone(&self.catalog), dialect, self.registry.list(), limits)
    }

    async fn wait_for_slot(
        &self,
        entry: &Entry,
        deadline: Instant,
        timeout_ms: u64,
    ) -> Result<tokio::sync::OwnedSemaphorePermit, QueryError> {
        let query = &entry.query;
        let slot = Arc::clone(&self.gate).acquire_owned();
        let permit = tokio::select! {
            biased;
            () = query.cancel.cancelled() => return Err(cancelled(&query.query_id)),
            slot = timeout_at(deadline, slot) => match slot {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) => return Err(QueryError::internal("the query gate is closed")),
                Err(_) => return Err(timed_out(&query.query_id, timeout_ms)),
            },
        };
        query.waiting.store(false, Ordering::Relaxed);
        Ok(permit)
    }
}

/// Names resolved, the outer limit put on, columns named.
fn plan_query(
    state: &SessionState,
    resolver: &Resolver,
    mut query: Box<Query>,
    context: &QueryContext,
) -> Result<Planned, QueryError> {
    let session = &context.session;
    let written = statement::rewrite(&mut query, session)?;
    let mut plan = plan::logical(state, resolver, query, &session.zone_name)?;
    if let Some(limit) = context.outer_limit {
        let limited = LogicalPlanBuilder::from(plan).limit(0, Some(limit)).and_then(LogicalPlanBuilder::build);
        plan = limited.map_err(from_datafusion)?;
    }
    let fields: Vec<Field> = plan
        .schema()
        .fields()
        .iter()
        .map(|field| {
            Field::new(field.name(), outgoing(field.data_type()), true).with_metadata(field.metadata().clone())
        })
        .collect();
    let names = column_names(&fields, written, session);
    let columns = fields.iter().zip(names).map(|(field, name)| column_of(field, name)).collect();
    let schema = Arc::new(Schema::new(Fields::from(fields)));
    Ok(Planned { plan, columns, schema })
}

fn column_names(fields: &[Field], written: Option<Vec<String>>, session: &Session) -> Vec<String> {
    let planned: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
    match (session.dialect, written) {
        (_, Some(written)) if written.len() == planned.len() => written,
        (Dialect::Postgres, _) => planned,
        (Dialect::Druid, _) => statement::deduplicate(planned),
    }
}

/// The type that an undeclared parameter is best given: what the planner says, else text.
fn guess_parameter(
    state: &SessionState,
    resolver: &Resolver,
    query: &Query,
    context: &QueryContext,
    at: usize,
) -> DataType {
    if statement::takes_list(query, at) {
        return DataType::new_list(DataType::Utf8, true);
    }
    let mut query = Box::new(query.clone());
    if statement::rewrite(&mut query, &context.session).is_err() {
        return DataType::Utf8;
    }
    let plan = plan::logical(state, resolver, query, &context.session.zone_name);
    let types = plan.ok().and_then(|plan| plan.get_parameter_types().ok()).unwrap_or_default();
    types.get(&format!("${}", at + 1)).cloned().flatten().map_or(DataType::Utf8, |ty| outgoing(&ty))
}

/// Statements that need no plan.
fn answer_at_once(body: Body, context: &QueryContext, query_id: String) -> QueryStream {
    let zone = context.session.zone;
    let none = |tag| QueryStream {
        query_id: query_id.clone(),
        tag,
        columns: vec![],
        schema: Arc::new(Schema::empty()),
        batches: stream::empty().boxed(),
        time_zone: zone,
        warnings: vec![],
    };
    match body {
        Body::Show(name) => {
            let value = crate::pg_catalog::setting(&name, &context.session);
            let column: ArrayRef = Arc::new(StringArray::from(vec![value.or_else(|| Some(String::new()))]));
            let schema = Arc::new(Schema::new(vec![Field::new(name, DataType::Utf8, true)]));
            match RecordBatch::try_new(Arc::clone(&schema), vec![column]) {
                Ok(batch) => finished(query_id, StatementTag::Show, schema, batch, zone),
                Err(_) => none(StatementTag::Show),
            }
        }
        Body::Set { name, value } => none(StatementTag::Set { name, value }),
        Body::Begin => none(StatementTag::Begin),
        Body::Commit => none(StatementTag::Commit),
        Body::Rollback => none(StatementTag::Rollback),
        Body::Other(word) => none(StatementTag::Other(word)),
        Body::Empty | Body::Query(_) | Body::Explain { .. } => none(StatementTag::Empty),
    }
}

/// An answer that is there already.
fn finished(
    query_id: String,
    tag: StatementTag,
    schema: SchemaRef,
    batch: RecordBatch,
    time_zone: store::calendar::Zone,
) -> QueryStream {
    let columns = schema.fields().iter().map(|field| column_of(field, field.name().clone())).collect();
    let batches = stream::iter([Ok(batch)]).boxed();
    QueryStream { query_id, tag, columns, schema, batches, time_zone, warnings: vec![] }
}

async fn explain_text(state: &SessionState, plan: &LogicalPlan) -> Result<String, QueryError> {
    let physical = plan::physical(state, plan).await?;
    Ok(displayable(physical.as_ref()).indent(false).to_string())
}

fn explain_schema(dialect: Dialect) -> SchemaRef {
    let names: &[&str] = match dialect {
        Dialect::Druid => &["PLAN", "RESOURCES", "ATTRIBUTES"],
        Dialect::Postgres => &["QUERY PLAN"],
    };
    Arc::new(Schema::new(names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect::<Fields>()))
}

fn explain_answer(text: &str, resolver: &Resolver, dialect: Dialect) -> Result<(SchemaRef, RecordBatch), QueryError> {
    let schema = explain_schema(dialect);
    let columns: Vec<ArrayRef> = match dialect {
        Dialect::Postgres => vec![Arc::new(StringArray::from(text.lines().collect::<Vec<_>>()))],
        Dialect::Druid => {
            let resources: Vec<_> =
                resolver.used().into_iter().map(|name| json!({"name": name, "type": "DATASOURCE"})).collect();
            let attributes = json!({"statementType": "SELECT"});
            [text.trim_end().to_owned(), json!(resources).to_string(), attributes.to_string()]
                .into_iter()
                .map(|cell| Arc::new(StringArray::from(vec![cell])) as ArrayRef)
                .collect()
        }
    };
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|error| from_datafusion(error.into()))?;
    Ok((schema, batch))
}

/// An id nobody gave: the time and a number that counts on.
fn fresh_id(now_ms: i64) -> String {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // The shape of a UUID, because clients keep it in columns of that type.
    format!("{:08x}-{:04x}-4000-8000-{:012x}", now_ms >> 16, now_ms & 0xffff, number & 0xffff_ffff_ffff)
}
