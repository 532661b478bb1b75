use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::edge::testing::Served;

struct Client<'a> {
    served: &'a Served,
    http: reqwest::Client,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl<'a> Client<'a> {
    fn new(served: &'a Served) -> Self {
        Self { served, http: reqwest::Client::new() }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.expect("answered");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.text().await.expect("body") }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.served.http)
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(self.http.get(self.url(path))).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.http.post(self.url(path)).json(body)).await
    }

    async fn sql(&self, body: Value) -> Answer {
        self.post("/druid/v2/sql", &body).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_in_every_format() {
    let served = Served::with_edits(9).await;
    let client = Client::new(&served);
    let query = "SELECT page, COUNT(*) AS n, SUM(added) AS s FROM edits GROUP BY page ORDER BY page";
    let object = client.sql(json!({"query": query})).await;
    assert_eq!(object.status, 200, "{}", object.body);
    assert_eq!(object.header("content-type"), Some("application/json"));
    assert!(object.header("x-druid-sql-query-id").is_some_and(|id| id.len() == 36));
    assert_eq!(
        object.json(),
        json!([{"page": "p0", "n": 3, "s": 9}, {"page": "p1", "n": 3, "s": 12}, {"page": "p2", "n": 3, "s": 15}])
    );
    let lines = client.sql(json!({"query": query, "resultFormat": "arrayLines", "header": true})).await;
    assert_eq!(lines.header("x-druid-sql-header-included"), Some("yes"));
    assert_eq!(lines.body, "[\"page\",\"n\",\"s\"]\n[\"p0\",3,9]\n[\"p1\",3,12]\n[\"p2\",3,15]\n\n");
    let csv = client
        .sql(json!({"query": "SELECT __time, page FROM edits ORDER BY __time LIMIT 1", "resultFormat": "csv",
        "header": true, "typesHeader": true, "sqlTypesHeader": true, "context": {"sqlTimeZone": "Asia/Seoul"}}));
    assert_eq!(csv.await.body, "__time,page\nLONG,STRING\nTIMESTAMP,VARCHAR\n2015-09-12T09:46:58.771+09:00,p0\n\n");
    let text =
        client.http.post(client.url("/druid/v2/sql/")).header("content-type", "text/plain").body("SELECT 1 AS one");
    assert_eq!(client.send(text).await.json(), json!([{"one": 1}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_query_is_said_as_druid_does() {
    let served = Served::with_edits(1).await;
    let client = Client::new(&served);
    let parse = client.sql(json!({"query": "SELEC 1", "context": {"sqlQueryId": "mine"}})).await;
    assert_eq!((parse.status, parse.header("x-druid-sql-query-id")), (400, Some("mine")), "{}", parse.body);
    let body = parse.json();
    assert_eq!(body["error"], "druidException");
    assert_eq!(body["persona"], "USER");
    assert!(body["errorMessage"].is_string() && body["errorClass"].is_string() && body["host"].is_string());
    assert_eq!(client.sql(json!({"query": "SELECT * FROM nowhere"})).await.status, 400);
    let malformed =
        client.http.post(client.url("/druid/v2/sql")).header("content-type", "application/json").body("{\"query\": }");
    let malformed = client.send(malformed).await;
    assert_eq!(malformed.status, 400);
    assert_eq!(malformed.json()["errorMessage"], "malformed JSON at line 1, column 11: expected value");
    assert!(malformed.header("x-druid-sql-query-id").is_some());
    let unknown = client.send(client.http.delete(client.url("/druid/v2/sql/nothing"))).await;
    assert_eq!((unknown.status, &unknown.json()["errorCode"]), (404, &json!("notFound")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_lives() {
    let served = Served::start().await;
    let client = Client::new(&served);
    let root = "/druid/indexer/v1/supervisor";
    let spec = json!({"type": "kafka", "spec": {
        "dataSchema": {"dataSource": "edits", "timestampSpec": {"column": "time", "format": "millis"},
            "dimensionsSpec": {"useSchemaDiscovery": true},
            "granularitySpec": {"segmentGranularity": "DAY", "queryGranularity": "NONE", "rollup": false}},
        "ioConfig": {"topic": "wiki", "inputFormat": {"type": "json"}, "useEarliestOffset": true}}});
    let created = client.post(root, &spec).await;
    assert_eq!((created.status, created.json()), (200, json!({"id": "edits"})));
    served.produce("wiki", 6).await;
    served.wait_for_rows("edits", 6).await;
    assert_eq!(client.get(root).await.json(), json!(["edits"]));
    let state = client.get(&format!("{root}?state=true")).await.json();
    assert_eq!(
        state,
        json!([{"id": "edits", "state": "RUNNING", "detailedState": "RUNNING", "healthy": true, "suspended": false}])
    );
    let status = client.get(&format!("{root}/edits/status")).await.json();
    assert_eq!(status["payload"]["activeTasks"][0]["currentOffsets"], json!({"0": 6}));
    assert_eq!(status["payload"]["aggregateLag"], 0);
    assert_eq!(client.get(&format!("{root}/edits/health")).await.json(), json!({"healthy": true}));
    let stats = client.get(&format!("{root}/edits/stats")).await.json();
    assert_eq!(stats["0"]["index_kafka_edits"]["totals"]["buildSegments"]["processed"], 6);
    let suspended = client.post(&format!("{root}/edits/suspend"), &Value::Null).await;
    assert_eq!((suspended.status, &suspended.json()["suspended"]), (200, &json!(true)));
    assert_eq!(client.post(&format!("{root}/edits/suspend"), &Value::Null).await.status, 400, "twice");
    let resumed = client.post(&format!("{root}/edits/resume"), &Value::Null).await;
    assert_eq!(resumed.json()["suspended"], false);
    assert_eq!(client.post(&format!("{root}/edits/reset"), &Value::Null).await.status, 501);
    let missing = client.get(&format!("{root}/none/status")).await;
    assert_eq!((missing.status, &missing.json()["errorMessage"]), (404, &json!("[none] does not exist")));
    let bad = client.post(root, &json!({"type": "kafka", "spec": {"dataSchema": {}}})).await;
    assert_eq!(bad.status, 400);
    assert!(
        bad.json()["errorMessage"].as_str().is_some_and(|text| text.starts_with("spec.dataSchema")),
        "{}",
        bad.body
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_api_health_and_the_page() {
    let served = Served::with_edits(3).await;
    let client = Client::new(&served);
    let created = client.post("/api/v1/tables", &json!({"name": "more", "topic": "edits"})).await;
    assert_eq!((created.status, &created.json()["topic"]), (201, &json!("edits")), "{}", created.body);
    let twice = client.post("/api/v1/tables", &json!({"name": "more"})).await;
    assert_eq!((twice.status, twice.header("content-type")), (409, Some("application/problem+json")));
    let table = client.get("/api/v1/tables/edits").await.json();
    assert_eq!((&table["rows"], &table["partitions"][0]["committed"]), (&json!(3), &json!(3)));
    assert!(table["columns"].as_array().is_some_and(|columns| columns.iter().any(|column| column["name"] == "page")));
    let topics = client.get("/api/v1/topics").await.json();
    assert!(
        topics.as_array().is_some_and(|all| all.iter().any(|topic| topic["name"] == "edits" && topic["records"] == 3))
    );
    assert_eq!(client.send(client.http.delete(client.url("/api/v1/tables/more"))).await.status, 204);
    assert_eq!(client.get("/api/v1/tables/more").await.status, 404);
    assert_eq!(client.get("/health/live").await.body, "live\n");
    assert_eq!(client.get("/health/ready").await.json(), json!({"ready": true}));
    assert_eq!(client.get("/health/cluster").await.json()["status"], "green");
    assert_eq!(client.get("/status/health").await.body, "true");
    assert_eq!(client.get("/druid/v2/datasources").await.json(), json!(["edits"]));
    assert_eq!(client.get("/druid/coordinator/v1/loadstatus").await.json(), json!({"edits": 100.0}));
    let status = client.get("/api/v1/status").await.json();
    assert_eq!((&status["status"], &status["tables"][0]["name"]), (&json!("green"), &json!("edits")));
    let page = client.get("/").await;
    assert!(page.body.contains("<title>Seawall</title>") && !page.body.contains("{{nonce}}"));
    let metrics = client.get("/metrics").await.body;
    assert!(metrics.contains("seawall_table_rows_live{table=\"edits\"} 3"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"));
    assert!(metrics.lines().filter(|line| !line.starts_with('#')).count() < 300);
    let nowhere = client.get("/druid/v3").await;
    assert_eq!((nowhere.status, &nowhere.json()["errorCode"]), (404, &json!("notFound")));
    assert_eq!(client.get("/api/v1/tables/edits/suspend").await.status, 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_bounded_and_other_sites_refused() {
    let served = Served::start().await;
    let client = Client::new(&served);
    assert!(answer_to_a_length(&served, super::limits::BODY_BYTES_MAX + 1).await.starts_with("HTTP/1.1 413 "));
    let foreign = client.http.post(client.url("/api/v1/tables")).header("origin", "http://evil.example").body("{}");
    assert_eq!(client.send(foreign).await.status, 403);
    let rebound = client.http.get(client.url("/api/v1/status")).header("host", "evil.example:8888");
    assert_eq!(client.send(rebound).await.status, 403);
}

/// What is answered to a request that says it has a body of `length` bytes and sends none of them.
async fn answer_to_a_length(served: &Served, length: usize) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut stream = tokio::net::TcpStream::connect(served.http).await.expect("connects");
    let head = format!(
        "POST /api/v1/tables HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
        served.http
    );
    stream.write_all(head.as_bytes()).await.expect("writes");
    let mut answer = vec![0; 4096];
    let count = stream.read(&mut answer).await.expect("reads");
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_query_that_keeps_its_threads_busy_delays_nothing_else() {
    let served = Served::with_edits(100).await;
    let client = Client::new(&served);
    let busy = "SELECT COUNT(*) FROM edits a, edits b, edits c, edits d, edits e";
    let queries: Vec<_> = (0..8)
        .map(|number| {
            let request = client.http.post(client.url("/druid/v2/sql"));
            let context = json!({"sqlQueryId": format!("busy-{number}")});
            tokio::spawn(request.json(&json!({"query": busy, "context": context})).send())
        })
        .collect();
    for _ in 0..1_000 {
        if served.node.query().running().len() == queries.len() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let began = std::time::Instant::now();
    assert_eq!(client.get("/health/ready").await.status, 200);
    assert!(began.elapsed() < std::time::Duration::from_secs(1), "{:?}", began.elapsed());
    for number in 0..8 {
        let cancelled = client.send(client.http.delete(client.url(&format!("/druid/v2/sql/busy-{number}")))).await;
        assert_eq!(cancelled.status, 202, "{}", cancelled.body);
    }
    for query in queries {
        assert_eq!(query.await.expect("task").expect("answer").status().as_u16(), 500);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_on_the_way_cuts_the_answer_off() {
    let served = Served::with_edits(4_000).await;
    let client = Client::new(&served);
    let query = "SELECT a.page, b.page AS other FROM edits a, edits b";
    for format in ["object", "csv"] {
        let body = json!({"query": query, "resultFormat": format, "context": {"timeout": 500}});
        let answer = client.http.post(client.url("/druid/v2/sql")).json(&body).send().await.expect("began");
        assert_eq!(answer.status().as_u16(), 200);
        let error = answer.bytes().await.map(|body| body.len()).expect_err("never whole");
        assert!(error.is_body() || error.is_decode(), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_told_so() {
    let served = Served::start_with(|config| config.listen.connections_max = 1).await;
    let first = Client::new(&served);
    assert_eq!(first.get("/health/live").await.status, 200, "and the connection is kept");
    let second = Client::new(&served);
    assert_eq!(second.get("/health/live").await.status, 503);
}
