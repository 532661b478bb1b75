//! Limits, cancel, parameters, describe: what the door promises.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::DataType;
use futures::StreamExt;
use query::{CancelOutcome, Dialect, Parameter, QueryErrorKind, QueryLimits, QueryService, StatementTag};
use serde_json::{Value, json};

use crate::common::{ask, request};
use crate::slt::small_catalog;

/// Long enough to be stopped: 8^9 rows.
const ENDLESS: &str =
    "SELECT SUM(a.n * b.n) FROM t a, t b, t c, t d, t e, t f, t g, t h, t i WHERE a.d + b.d + c.d + i.d > 0.1";

fn service(limits: QueryLimits) -> QueryService {
    QueryService::new(Arc::new(small_catalog()), limits)
}

fn kind<T>(result: Result<T, query::QueryError>) -> QueryErrorKind {
    match result {
        Ok(_) => panic!("an answer came where an error was expected"),
        Err(error) => error.kind,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_cancelled_by_its_id() {
    let service = service(QueryLimits::default());
    let mut request = request(ENDLESS, Dialect::Druid);
    request.context.insert("sqlQueryId".into(), "mine".into());
    let task = tokio::spawn({
        let service = service.clone();
        async move { ask(&service, request).await }
    });
    while service.running().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(service.running()[0].query_id, "mine");
    assert_eq!(service.cancel("other"), CancelOutcome::NotFound);
    assert_eq!(service.cancel("mine"), CancelOutcome::Cancelled);
    assert_eq!(kind(task.await.unwrap()), QueryErrorKind::Cancelled);
    assert!(service.running().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_ends_at_its_timeout() {
    let service = service(QueryLimits::default());
    let mut request = request(ENDLESS, Dialect::Druid);
    request.context.insert("timeout".into(), 50.into());
    assert_eq!(kind(ask(&service, request).await), QueryErrorKind::Timeout);
    assert!(service.running().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_more_than_may_wait_is_refused() {
    let service = service(QueryLimits { concurrent_max: 1, ..QueryLimits::default() });
    let first = service.run(request("SELECT n FROM t", Dialect::Druid)).await.unwrap();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { ask(&service, request("SELECT COUNT(*) FROM t", Dialect::Druid)).await })
        })
        .collect();
    while service.running().len() < 5 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(kind(ask(&service, request("SELECT 1", Dialect::Druid)).await), QueryErrorKind::Capacity);
    drop(first);
    for task in waiting {
        assert_eq!(task.await.unwrap().unwrap().rows, [[Some("8".to_owned())]]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded() {
    let service = service(QueryLimits { query_memory_bytes: 100_000, ..QueryLimits::default() });
    let sql = "SELECT a.n, b.n, c.n, d.n, e.n, f.n FROM t a, t b, t c, t d, t e, t f ORDER BY a.d, b.d, c.d";
    assert_eq!(kind(ask(&service, request(sql, Dialect::Druid)).await), QueryErrorKind::Memory);
    assert!(ask(&service, request("SELECT n FROM t ORDER BY n", Dialect::Druid)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_frees_its_slot() {
    let service = service(QueryLimits { concurrent_max: 1, ..QueryLimits::default() });
    for _ in 0..20 {
        let mut stream = service.run(request("SELECT a.n FROM t a, t b, t c, t d", Dialect::Druid)).await.unwrap();
        assert!(stream.batches.next().await.unwrap().is_ok());
    }
    assert!(service.running().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_and_long_statements_do_no_harm() {
    let service = service(QueryLimits::default());
    let brackets = format!("SELECT {}1{}", "(".repeat(500), ")".repeat(500));
    assert_eq!(kind(ask(&service, request(&brackets, Dialect::Druid)).await), QueryErrorKind::Parse);
    let chain = format!("SELECT COUNT(*) FROM t WHERE n = 1{}", " OR n = 2".repeat(1_900));
    assert_eq!(ask(&service, request(&chain, Dialect::Druid)).await.unwrap().rows, [[Some("2".to_owned())]]);
    let sum = format!("SELECT 1{}", " + 1".repeat(150));
    assert_eq!(ask(&service, request(&sum, Dialect::Druid)).await.unwrap().rows, [[Some("151".to_owned())]]);
    for operator in ["+", "OR", "=", "||", "IS NULL AND", "::text ||"] {
        for count in [1_000, 1_990, 3_990, 30_000] {
            let broken = format!("SELECT 1{} FROM", format!(" {operator} 1").repeat(count));
            for dialect in [Dialect::Druid, Dialect::Postgres] {
                assert_eq!(kind(ask(&service, request(&broken, dialect)).await), QueryErrorKind::Parse);
                let whole = broken.trim_end_matches(" FROM");
                let _ = ask(&service, request(whole, dialect)).await;
            }
        }
    }
    for many in [" UNION ALL SELECT 1".repeat(5_000), format!(" FROM t{}", ", t".repeat(5_000))] {
        let broken = format!("SELECT 1{many}");
        assert_eq!(kind(ask(&service, request(&broken, Dialect::Druid)).await), QueryErrorKind::Parse);
    }
    let unions = format!("SELECT COUNT(*) FROM (SELECT 1{})", " UNION ALL SELECT 1".repeat(100));
    assert_eq!(ask(&service, request(&unions, Dialect::Druid)).await.unwrap().rows, [[Some("101".to_owned())]]);
    let cases = format!("SELECT {}1{}", "CASE WHEN TRUE THEN ".repeat(2_000), " END".repeat(2_000));
    assert_eq!(kind(ask(&service, request(&cases, Dialect::Druid)).await), QueryErrorKind::Parse);
    let nots = format!("SELECT {} TRUE", "NOT ".repeat(3_000));
    assert_eq!(kind(ask(&service, request(&nots, Dialect::Druid)).await), QueryErrorKind::Parse);
    let list = format!("SELECT COUNT(*) FROM t WHERE n IN ({}1)", "7, ".repeat(20_000));
    assert_eq!(ask(&service, request(&list, Dialect::Druid)).await.unwrap().rows, [[Some("1".to_owned())]]);
    let long = format!("SELECT '{}'", "x".repeat(2 << 20));
    assert_eq!(kind(ask(&service, request(&long, Dialect::Druid)).await), QueryErrorKind::Parse);
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_take_their_places() {
    let service = service(QueryLimits::default());
    let parameter = |sql_type: &str, value: Value| Parameter { sql_type: sql_type.into(), value };
    let mut asked = request(
        "SELECT COUNT(*), ? FROM t WHERE n > ? AND __time < ? AND city = ? AND d < ? AND ARRAY_CONTAINS(?, user) LIMIT ?",
        Dialect::Druid,
    );
    asked.parameters = vec![
        parameter("VARCHAR", json!("it's")),
        parameter("BIGINT", json!(-10)),
        parameter("TIMESTAMP", json!("2000-01-02 07:00:00")),
        parameter("varchar", json!("Seoul")),
        parameter("DOUBLE", json!(100.5)),
        parameter("ARRAY", json!(["a", "d"])),
        parameter("INTEGER", json!(1)),
    ];
    assert_eq!(ask(&service, asked.clone()).await.unwrap().rows, [[Some("2".to_owned()), Some("it's".to_owned())]]);
    asked.parameters.pop();
    let error = ask(&service, asked).await.err().unwrap();
    assert_eq!(error.to_string(), "parameter 7 has no value: 6 were given");
    let mut asked = request("SELECT $2 || $1 || $2", Dialect::Postgres);
    asked.parameters = vec![parameter("TEXT", json!("b")), parameter("TEXT", json!("a"))];
    assert_eq!(ask(&service, asked).await.unwrap().rows, [[Some("aba".to_owned())]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_described_before_it_runs() {
    let service = service(QueryLimits::default());
    let sql = "SELECT city, COUNT(*) AS c, MAX(__time), $1 FROM t WHERE n > $2 AND city = $3 GROUP BY city";
    let found = service.describe(&request(sql, Dialect::Postgres), &[Some(DataType::Int64)]).await.unwrap();
    let names: Vec<(&str, &str)> =
        found.columns.iter().map(|column| (column.name.as_str(), column.sql_type.as_str())).collect();
    assert_eq!(names, [("city", "VARCHAR"), ("c", "BIGINT"), ("max", "TIMESTAMP"), ("?column?", "BIGINT")]);
    assert_eq!(found.parameters, [DataType::Int64, DataType::Int64, DataType::Utf8]);
    assert_eq!(found.tag, StatementTag::Select);
    let begin = service.describe(&request("BEGIN", Dialect::Postgres), &[]).await.unwrap();
    assert_eq!((begin.tag, begin.columns.len()), (StatementTag::Begin, 0));
    let error = service.describe(&request("SELECT nope FROM t", Dialect::Postgres), &[]).await;
    assert_eq!(kind(error), QueryErrorKind::Validation);
}

#[tokio::test(flavor = "multi_thread")]
async fn session_statements_say_what_they_are() {
    let service = service(QueryLimits::default());
    for (sql, tag) in [
        ("BEGIN", StatementTag::Begin),
        ("START TRANSACTION READ ONLY", StatementTag::Begin),
        ("COMMIT", StatementTag::Commit),
        ("ROLLBACK", StatementTag::Rollback),
        ("DISCARD ALL", StatementTag::Other("DISCARD ALL")),
        ("", StatementTag::Empty),
        ("-- nothing", StatementTag::Empty),
        (
            "SET extra_float_digits = 3",
            StatementTag::Set { name: "extra_float_digits".into(), value: Some("3".into()) },
        ),
        ("SET SESSION x.y TO 'z'", StatementTag::Set { name: "x.y".into(), value: Some("z".into()) }),
        ("SET TIME ZONE 'Asia/Seoul'", StatementTag::Set { name: "TimeZone".into(), value: Some("Asia/Seoul".into()) }),
        ("SET statement_timeout TO DEFAULT", StatementTag::Set { name: "statement_timeout".into(), value: None }),
    ] {
        let stream = service.run(request(sql, Dialect::Postgres)).await.unwrap();
        assert_eq!(stream.tag, tag, "{sql}");
    }
    let parts = query::split_statements("SELECT ';'; -- a ; b\n BEGIN;", Dialect::Postgres).unwrap();
    assert_eq!(parts.len(), 2);
    assert_eq!(parts[0].trim(), "SELECT ';'");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_whose_it_is() {
    let service = service(QueryLimits::default());
    let error = ask(&service, request("SELECT\n  FROM t WHERE", Dialect::Druid)).await.err().unwrap();
    let body = error.to_druid_json(Some("localhost:8888"));
    assert_eq!(body["error"], "druidException");
    assert_eq!((body["category"].as_str(), body["persona"].as_str()), (Some("INVALID_INPUT"), Some("USER")));
    assert_eq!(body["context"]["line"], "2");
    assert_eq!((error.http_status(), error.sqlstate()), (400, "42601"));
    let error = ask(&service, request("SELECT city + 1 FROM t GROUP BY n", Dialect::Druid)).await.err().unwrap();
    assert_eq!(error.http_status(), 400, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outer_limit_cuts_the_answer() {
    let service = service(QueryLimits::default());
    let mut asked = request("SELECT n FROM t ORDER BY n DESC", Dialect::Druid);
    asked.context.insert("sqlOuterLimit".into(), 2.into());
    asked.context.insert("unknownKey".into(), json!({"is": "ignored"}));
    let answer = ask(&service, asked).await.unwrap();
    assert_eq!(answer.rows, [[Some("8".to_owned())], [Some("6".to_owned())]]);
}
