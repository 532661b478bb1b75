//! From a syntax tree to a physical plan: names resolved, Druid's type rules applied, work given to the engine.
//!
//! ```text
//! context    names and functions for the planner
//! coerce     comparisons of text with numbers and times, as Calcite does them
//! order      groups come to a window function in the order of their keys;  ties  also equal ones
//! aggregate  Aggregate over a table -> the segment engine;  top  ORDER BY .. LIMIT into it
//! memory     one query's share of the memory
//! errors     DataFusion's errors in our words
//! ```

mod aggregate;
mod coerce;
mod context;
pub mod errors;
mod memory;
mod order;
mod ties;
mod top;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::config::Dialect as NumberDialect;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{FunctionRegistry, SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::optimizer::Optimizer;
use datafusion::optimizer::{OptimizerRule, push_down_filter::PushDownFilter};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use datafusion::sql::planner::{NullOrdering, ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast::{Query, Statement};

pub use memory::{QueryPool, SharedMemory};

use crate::error::QueryError;
use crate::limits::{BATCH_ROWS, QueryLimits};
use crate::system::Resolver;
use errors::from_datafusion;

/// Functions of the planner's own that take the time from it, which here is the time the planner was made. Their twins
/// of the dialects are written as constants before.
const CLOCKS: [&str; 3] = ["now", "current_date", "current_time"];

/// Everything about planning that is the same for every query. Made once.
#[derive(Debug)]
pub struct Planner {
    state: SessionState,
}

impl Planner {
    pub fn new(limits: &QueryLimits) -> Result<Self, QueryError> {
        let mut config = SessionConfig::new()
            .with_target_partitions(limits.threads.max(1))
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(false)
            .with_batch_size(BATCH_ROWS)
            // One partition keeps the order that Druid's windows have (see `order`).
            .with_repartition_windows(false);
        config.options_mut().sql_parser.dialect = NumberDialect::PostgreSQL;
        let mut state = SessionStateBuilder::new()
            .with_config(config)
            .with_default_features()
            .with_optimizer_rules(optimizer_rules())
            .with_physical_optimizer_rule(Arc::new(ties::OrderTies))
            .build();
        for function in crate::functions::scalars() {
            state.register_udf(function).map_err(from_datafusion)?;
        }
        for function in crate::pg_catalog::functions() {
            state.register_udf(function).map_err(from_datafusion)?;
        }
        for function in crate::functions::aggregates() {
            state.register_udaf(function).map_err(from_datafusion)?;
        }
        for clock in CLOCKS {
            state.deregister_udf(clock).map_err(from_datafusion)?;
        }
        Ok(Self { state })
    }

    /// What planning works with. It knows nothing of a single query: a table brings its query's limits along.
    pub fn state(&self) -> &SessionState {
        &self.state
    }

    /// What one query's plan is run with: its memory.
    pub fn task(&self, pool: Arc<dyn MemoryPool>) -> Result<Arc<TaskContext>, QueryError> {
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(pool)
            .with_disk_manager_builder(disk)
            .build_arc()
            .map_err(from_datafusion)?;
        // A plan has its functions in it; those by name are for plans that come as bytes.
        let task = TaskContext::new(
            None,
            self.state.session_id().to_owned(),
            self.state.config().clone(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            runtime,
        );
        Ok(Arc::new(task))
    }
}

/// DataFusion's rules, with ours after filters have come down to the table and before distinct counts are taken
/// apart into two groupings.
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    let after = PushDownFilter::new();
    let at = rules.iter().position(|rule| rule.name() == after.name()).map_or(rules.len(), |at| at + 1);
    rules.insert(at, Arc::new(aggregate::EngineAggregate));
    rules.push(Arc::new(top::EngineTop));
    rules
}

/// Names resolved and types checked, not yet optimized.
pub fn logical(
    state: &SessionState,
    resolver: &Resolver,
    query: Box<Query>,
    zone: &str,
) -> Result<LogicalPlan, QueryError> {
    let context = context::Context::new(state, resolver);
    let planner = SqlToRel::new_with_options(&context, parser_options());
    let plan = planner.sql_statement_to_plan(Statement::Query(query)).map_err(from_datafusion)?;
    let plan = coerce::coerce(plan, zone).map_err(from_datafusion)?;
    order::order_windows(plan).map_err(from_datafusion)
}

fn parser_options() -> ParserOptions {
    ParserOptions::new()
        .with_parse_float_as_decimal(false)
        .with_enable_ident_normalization(false)
        .with_map_string_types_to_utf8view(false)
        .with_collect_spans(false)
        .with_default_null_ordering(NullOrdering::NullsMin)
}

/// Optimized and ready to run.
pub async fn physical(state: &SessionState, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>, QueryError> {
    state.create_physical_plan(plan).await.map_err(from_datafusion)
}
