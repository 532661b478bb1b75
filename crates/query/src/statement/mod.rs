//! From text to one statement of one dialect: the `SET` prefix, `EXPLAIN PLAN FOR`, and a syntax tree that
//! is rewritten so that the planner sees only what it knows.
//!
//! ```text
//! balance     long chains of AND and OR made shallow; a bound on depth
//! dialect     how the two dialects are read
//! names       what result columns are called; duplicate and missing names
//! rewrite     the walk over the tree: functions, time, casts, intervals
//! functions   one table of Druid's functions in the planner's words;  quantile  those for quantiles
//! time        units, periods, literals
//! postgres    what psql and drivers write that no one else does
//! parameters  values for `?` and `$n`
//! ast         small constructors
//! ```
//!
//! Nothing here knows a table: names are resolved later, so a rewrite never depends on types.

mod ast;
mod balance;
mod dialect;
mod functions;
mod names;
mod parameters;
mod postgres;
mod quantile;
mod rewrite;
mod time;
mod unnest;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, Set, Statement, Value as SqlValue, visit_relations};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use serde_json::{Map, Value};

pub use rewrite::{Session, deduplicate, rewrite};
pub use time::period_of_unit;

use crate::catalog::LOST_BATCHES;
use crate::error::{Position, QueryError, QueryErrorKind};
use crate::limits::{RELATIONS_MAX, SQL_BYTES_MAX, SQL_CHAIN_MAX, SQL_DEPTH_MAX, SQL_TOKENS_MAX};
use crate::request::Dialect;
pub use parameters::{bind, example_of, takes_list};

/// A statement, read but not yet rewritten.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What `SET k = v;` before it said, in order.
    pub settings: Map<String, Value>,
    pub body: Body,
    /// How many parameters it names.
    pub parameters: usize,
}

/// The statement itself.
#[derive(Clone, Debug)]
pub enum Body {
    Query(Box<Query>),
    Explain { query: Box<Query>, analyze: bool },
    Show(String),
    Set { name: String, value: Option<String> },
    Begin,
    Commit,
    Rollback,
    Empty,
    Other(&'static str),
}

/// Reads one statement and the `SET`s before it.
pub fn parse(sql: &str, dialect: Dialect) -> Result<Parsed, QueryError> {
    let mut parts = split(tokenize(sql, dialect)?);
    let mut settings = Map::new();
    if dialect == Dialect::Druid {
        while parts.len() > 1 && first_word(&parts[0]) == Some(Keyword::SET) {
            let (name, value) = setting(&parts.remove(0))?;
            settings.insert(name, value);
        }
    }
    if parts.len() > 1 {
        return Err(QueryError::unsupported(
            "more than one statement in one request; send them one by one (only SET may come before a query)",
        )
        .at(position(&parts[1])));
    }
    let Some(mut tokens) = parts.pop() else {
        return Ok(Parsed { settings, body: Body::Empty, parameters: 0 });
    };
    let parameters = number_parameters(&mut tokens)?;
    let plan_for = strip_plan_for(&mut tokens);
    fill_trim(&mut tokens);
    let body = parse_body(tokens, dialect, plan_for)?;
    Ok(Parsed { settings, body, parameters })
}

/// Last names of everything that may be a user's table in the statement, each once, common table expressions among them; and
/// [`LOST_BATCHES`].
pub fn table_names(query: &Query) -> Vec<String> {
    let mut names = BTreeSet::new();
    let _walked: ControlFlow<()> = visit_relations(query, |relation| {
        let mut parts = relation.0.iter().rev().filter_map(|part| part.as_ident());
        let table = parts.next();
        let schema = parts.next().map(|ident| ident.value.to_ascii_lowercase());
        if let (Some(table), None | Some("druid" | "public")) = (table, schema.as_deref()) {
            names.insert(table.value.clone());
        } else if let (Some(table), Some("sys")) = (table, schema.as_deref())
            && LOST_BATCHES.strip_prefix("sys.").is_some_and(|lost| table.value.eq_ignore_ascii_case(lost))
        {
            names.insert(LOST_BATCHES.to_owned());
        }
        ControlFlow::Continue(())
    });
    names.into_iter().collect()
}

/// The statements of a text that may hold several, as PostgreSQL's simple protocol allows.
///
/// # Errors
/// If the text cannot be cut into tokens.
pub fn split_statements(sql: &str, dialect: Dialect) -> Result<Vec<String>, QueryError> {
    let parts = split(tokenize(sql, dialect)?);
    Ok(parts.iter().map(|part| part.iter().map(|token| token.token.to_string()).collect()).collect())
}

fn tokenize(sql: &str, dialect: Dialect) -> Result<Vec<TokenWithSpan>, QueryError> {
    if sql.len() > SQL_BYTES_MAX {
        let message = format!("the statement has {} bytes, more than {SQL_BYTES_MAX}; shorten it", sql.len());
        return Err(QueryError::new(QueryErrorKind::Parse, message));
    }
    let tokens = Tokenizer::new(dialect::parser_dialect(dialect), sql).tokenize_with_location().map_err(|error| {
        let place = Position { line: error.location.line, column: error.location.column };
        QueryError::new(QueryErrorKind::Parse, lower_first(&error.message)).at(Some(place))
    })?;
    if tokens.len() > SQL_TOKENS_MAX {
        let message = format!("the statement has {} tokens, more than {SQL_TOKENS_MAX}; shorten it", tokens.len());
        return Err(QueryError::new(QueryErrorKind::Parse, message));
    }
    check_depth(&tokens)?;
    Ok(tokens)
}

fn check_depth(tokens: &[TokenWithSpan]) -> Result<(), QueryError> {
    let refuse = |token: &TokenWithSpan, message: String| {
        let place = Position { line: token.span.start.line, column: token.span.start.column };
        Err(QueryError::new(QueryErrorKind::Parse, message).at(Some(place)))
    };
    let mut chains = vec![0usize];
    let mut relations = 0usize;
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket => chains.push(0),
            Token::RParen | Token::RBracket if chains.len() > 1 => {
                chains.pop();
            }
            Token::Comma | Token::SemiColon => {
                if let Some(chain) = chains.last_mut() {
                    *chain = 0;
                }
            }
            Token::Word(word) => match word.keyword {
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::JOIN => relations += 1,
                Keyword::AND
                | Keyword::OR
                | Keyword::LIKE
                | Keyword::IS
                | Keyword::IN
                | Keyword::BETWEEN
                | Keyword::COLLATE
                | Keyword::AT => *chains.last_mut().unwrap_or(&mut 0) += 1,
                _ => {}
            },
            Token::Whitespace(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::Period => {}
            // Any other sign may be an operator.
            _ => *chains.last_mut().unwrap_or(&mut 0) += 1,
        }
        if chains.len() > SQL_DEPTH_MAX {
            return refuse(token, format!("brackets are nested more than {SQL_DEPTH_MAX} deep; flatten the statement"));
        }
        if chains.last().is_some_and(|chain| *chain > SQL_CHAIN_MAX) {
            return refuse(token, format!("more than {SQL_CHAIN_MAX} operators in a row; use IN (...) or brackets"));
        }
        if relations > RELATIONS_MAX {
            return refuse(token, format!("more than {RELATIONS_MAX} joins and set operations; split the statement"));
        }
    }
    Ok(())
}

/// Cuts at semicolons; parts of blanks and comments only are dropped.
fn split(tokens: Vec<TokenWithSpan>) -> Vec<Vec<TokenWithSpan>> {
    let mut parts = vec![Vec::new()];
    for token in tokens {
        match token.token {
            Token::SemiColon => parts.push(Vec::new()),
            Token::EOF => {}
            _ => {
                if let Some(part) = parts.last_mut() {
                    part.push(token);
                }
            }
        }
    }
    parts.retain(|part| part.iter().any(|token| !matches!(token.token, Token::Whitespace(_))));
    parts
}

fn words(tokens: &[TokenWithSpan]) -> impl Iterator<Item = &TokenWithSpan> {
    tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)))
}

fn first_word(tokens: &[TokenWithSpan]) -> Option<Keyword> {
    match &words(tokens).next()?.token {
        Token::Word(word) => Some(word.keyword),
        _ => None,
    }
}

fn position(tokens: &[TokenWithSpan]) -> Option<Position> {
    let start = words(tokens).next()?.span.start;
    (start.line > 0).then_some(Position { line: start.line, column: start.column })
}

/// `SET name = literal`.
fn setting(tokens: &[TokenWithSpan]) -> Result<(String, Value), QueryError> {
    let fail = || {
        QueryError::new(QueryErrorKind::Parse, "expected SET name = value, the value a string, a number, TRUE or FALSE")
            .at(position(tokens))
    };
    let plain: Vec<&Token> = words(tokens).map(|token| &token.token).collect();
    let (Some(Token::Word(name)), Some(Token::Eq)) = (plain.get(1), plain.get(2)) else { return Err(fail()) };
    let value = match plain.get(3..).unwrap_or_default() {
        [Token::SingleQuotedString(text)] => Value::String(text.clone()),
        [Token::Number(text, _)] => serde_json::from_str(text).map_err(|_| fail())?,
        [Token::Minus, Token::Number(text, _)] => serde_json::from_str(&format!("-{text}")).map_err(|_| fail())?,
        [Token::Word(word)] if word.keyword == Keyword::TRUE => Value::Bool(true),
        [Token::Word(word)] if word.keyword == Keyword::FALSE => Value::Bool(false),
        [Token::Word(word)] if word.keyword == Keyword::NULL => Value::Null,
        _ => return Err(fail()),
    };
    Ok((name.value.clone(), value))
}

/// Makes `?` into `$1`, `$2`, ... in the order of the text, and counts the parameters.
fn number_parameters(tokens: &mut [TokenWithSpan]) -> Result<usize, QueryError> {
    let mut count = 0usize;
    for token in tokens {
        let Token::Placeholder(name) = &mut token.token else { continue };
        if name == "?" {
            count += 1;
            *name = format!("${count}");
        } else {
            let number = name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
            match number {
                Some(number) if (1..=SQL_TOKENS_MAX).contains(&number) => count = count.max(number),
                _ => return Err(QueryError::new(QueryErrorKind::Parse, format!("{name} is no parameter; use ?"))),
            }
        }
    }
    Ok(count)
}

/// Takes `EXPLAIN PLAN FOR` off the front; true if it was there.
fn strip_plan_for(tokens: &mut Vec<TokenWithSpan>) -> bool {
    const PREFIX: [&str; 3] = ["EXPLAIN", "PLAN", "FOR"];
    let places: Vec<usize> =
        (0..tokens.len()).filter(|&at| !matches!(tokens[at].token, Token::Whitespace(_))).take(PREFIX.len()).collect();
    let matches = places.len() == PREFIX.len()
        && places.iter().zip(PREFIX).all(|(&at, expected)| {
            matches!(&tokens[at].token, Token::Word(word) if word.value.eq_ignore_ascii_case(expected))
        });
    if matches {
        tokens.drain(..=places[PREFIX.len() - 1]);
    }
    matches
}

/// `TRIM(BOTH FROM x)` means blanks; the parser wants them written.
fn fill_trim(tokens: &mut Vec<TokenWithSpan>) {
    let is = |token: &TokenWithSpan, keywords: &[Keyword]| match &token.token {
        Token::Word(word) => keywords.contains(&word.keyword),
        _ => false,
    };
    let places: Vec<usize> =
        (0..tokens.len()).filter(|&at| !matches!(tokens[at].token, Token::Whitespace(_))).collect();
    let bare: Vec<usize> = places
        .windows(2)
        .filter(|pair| {
            is(&tokens[pair[0]], &[Keyword::BOTH, Keyword::LEADING, Keyword::TRAILING])
                && is(&tokens[pair[1]], &[Keyword::FROM])
        })
        .map(|pair| pair[1])
        .collect();
    for at in bare.into_iter().rev() {
        let span = tokens[at].span;
        tokens.insert(at, TokenWithSpan { token: Token::SingleQuotedString(" ".to_owned()), span });
    }
}

fn parse_body(tokens: Vec<TokenWithSpan>, dialect: Dialect, plan_for: bool) -> Result<Body, QueryError> {
    let end = position(&tokens);
    let mut parser = Parser::new(dialect::parser_dialect(dialect))
        .with_tokens_with_locations(tokens)
        .with_recursion_limit(SQL_DEPTH_MAX * 4);
    let mut statement = parser.parse_statement().map_err(parser_error)?;
    balance::balance(&mut statement)?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        let place = Position { line: rest.span.start.line, column: rest.span.start.column };
        let message = format!("received an unexpected token [{}], expected the end of the statement", rest.token);
        return Err(QueryError::new(QueryErrorKind::Parse, message).at(Some(place)));
    }
    if plan_for {
        return match statement {
            Statement::Query(query) => Ok(Body::Explain { query, analyze: false }),
            other => Err(not_offered(&other).at(end)),
        };
    }
    body_of(statement)
}

fn body_of(statement: Statement) -> Result<Body, QueryError> {
    Ok(match statement {
        Statement::Query(query) => Body::Query(query),
        Statement::Explain { statement, analyze, .. } => match *statement {
            Statement::Query(query) => Body::Explain { query, analyze },
            other => return Err(not_offered(&other)),
        },
        Statement::ShowVariable { variable } => {
            Body::Show(variable.iter().map(|ident| ident.value.as_str()).collect::<Vec<_>>().join("_"))
        }
        Statement::Set(set) => set_body(set)?,
        Statement::Reset(_) => Body::Other("RESET"),
        Statement::StartTransaction { .. } => Body::Begin,
        Statement::Commit { .. } => Body::Commit,
        Statement::Rollback { .. } => Body::Rollback,
        Statement::Savepoint { .. } => Body::Other("SAVEPOINT"),
        Statement::ReleaseSavepoint { .. } => Body::Other("RELEASE"),
        Statement::Discard { .. } => Body::Other("DISCARD ALL"),
        Statement::Deallocate { .. } => Body::Other("DEALLOCATE"),
        Statement::LISTEN { .. } => Body::Other("LISTEN"),
        Statement::UNLISTEN { .. } => Body::Other("UNLISTEN"),
        other => return Err(not_offered(&other)),
    })
}

fn set_body(set: Set) -> Result<Body, QueryError> {
    let text = |expr: &Expr| match expr {
        Expr::Value(value) => match &value.value {
            SqlValue::SingleQuotedString(text) | SqlValue::DoubleQuotedString(text) => text.clone(),
            other => other.to_string(),
        },
        Expr::Identifier(ident) => ident.value.clone(),
        other => other.to_string(),
    };
    Ok(match set {
        Set::SingleAssignment { variable, values, .. } => {
            let value = values.iter().map(text).collect::<Vec<_>>().join(", ");
            let value = (!value.eq_ignore_ascii_case("default")).then_some(value);
            Body::Set { name: variable.to_string().replace('"', ""), value }
        }
        Set::SetTimeZone { value, .. } => {
            let value = text(&value);
            let reset = value.eq_ignore_ascii_case("default") || value.eq_ignore_ascii_case("local");
            Body::Set { name: "TimeZone".into(), value: (!reset).then_some(value) }
        }
        Set::SetNames { charset_name, .. } => {
            Body::Set { name: "client_encoding".into(), value: Some(charset_name.value) }
        }
        Set::SetTransaction { .. } | Set::SetRole { .. } | Set::SetSessionAuthorization(_) => Body::Other("SET"),
        other => return Err(QueryError::unsupported(format!("{other} is not offered; use SET name = value"))),
    })
}

fn not_offered(statement: &Statement) -> QueryError {
    let text = statement.to_string();
    let word: String = text.split_whitespace().take(2).collect::<Vec<_>>().join(" ").to_uppercase();
    QueryError::unsupported(format!("{word} is not offered here; SELECT, EXPLAIN PLAN FOR and SET are"))
}

/// The parser's message with its place as fields.
fn parser_error(error: ParserError) -> QueryError {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        ParserError::RecursionLimitExceeded => "the statement is nested too deeply; flatten it".to_owned(),
    };
    let (message, place) = split_place(&text);
    QueryError::new(QueryErrorKind::Parse, lower_first(message)).at(place)
}

/// `... at Line: 1, Column: 8` -> the message and the place.
fn split_place(text: &str) -> (&str, Option<Position>) {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else { return (text, None) };
    let Some((line, column)) = place.split_once(", Column: ") else { return (text, None) };
    match (line.trim().parse(), column.trim().parse()) {
        (Ok(line), Ok(column)) => (message, Some(Position { line, column })),
        _ => (text, None),
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests;
