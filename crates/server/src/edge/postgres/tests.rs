//! Sessions against a whole node, byte by byte, as drivers speak.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::edge::testing::Served;

/// A client that shows what it is told as lines of text.
struct Client {
    stream: TcpStream,
    pid: i32,
    secret: Bytes,
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&u32::try_from(body.len() + 4).expect("short").to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = format!("{name}\0{sql}\0").into_bytes();
    body.put_u16(u16::try_from(types.len()).expect("few"));
    types.iter().for_each(|oid| body.put_u32(*oid));
    message(b'P', &body)
}

fn bind(portal: &str, statement: &str, values: &[Option<&[u8]>], parameter_format: u16, result_format: u16) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0").into_bytes();
    body.put_u16(1);
    body.put_u16(parameter_format);
    body.put_u16(u16::try_from(values.len()).expect("few"));
    for value in values {
        match value {
            None => body.put_i32(-1),
            Some(value) => {
                body.put_u32(u32::try_from(value.len()).expect("short"));
                body.extend_from_slice(value);
            }
        }
    }
    body.put_u16(1);
    body.put_u16(result_format);
    message(b'B', &body)
}

fn describe(target: u8, name: &str) -> Vec<u8> {
    message(b'D', &[&[target], name.as_bytes(), b"\0"].concat())
}

fn execute(portal: &str, rows_max: u32) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), b"\0", &rows_max.to_be_bytes()].concat())
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

fn cstring(body: &mut Bytes) -> String {
    let end = body.iter().position(|byte| *byte == 0).expect("terminated");
    let text = String::from_utf8_lossy(&body.split_to(end)).into_owned();
    body.advance(1);
    text
}

impl Client {
    async fn connect(served: &Served) -> Self {
        let mut stream = TcpStream::connect(served.postgres).await.expect("connected");
        stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await.expect("SSL request");
        assert_eq!(stream.read_u8().await.expect("answer"), b'N', "no encryption yet");
        let body = b"\0\x03\0\0user\0ann\0database\0db\0application_name\0test\0\0";
        let length = u32::try_from(body.len() + 4).expect("short");
        stream.write_all(&[&length.to_be_bytes(), body.as_slice()].concat()).await.expect("startup");
        let mut client = Self { stream, pid: 0, secret: Bytes::new() };
        let greeting = client.until_ready().await;
        assert_eq!(greeting.first().map(String::as_str), Some("auth 0"));
        for setting in
            ["client_encoding=UTF8", "integer_datetimes=on", "standard_conforming_strings=on", "TimeZone=UTC"]
        {
            assert!(greeting.iter().any(|line| line == &format!("set {setting}")), "{setting} in {greeting:?}");
        }
        client
    }

    async fn send(&mut self, messages: &[Vec<u8>]) {
        self.stream.write_all(&messages.concat()).await.expect("sent");
    }

    async fn query(&mut self, sql: &str) -> Vec<String> {
        self.send(&[message(b'Q', &[sql.as_bytes(), b"\0"].concat())]).await;
        self.until_ready().await
    }

    async fn extended(&mut self, messages: &[Vec<u8>]) -> Vec<String> {
        self.send(messages).await;
        self.send(&[sync()]).await;
        self.until_ready().await
    }

    async fn next(&mut self) -> Option<String> {
        let kind = self.stream.read_u8().await.ok()?;
        let length = self.stream.read_u32().await.expect("length") as usize - 4;
        let mut body = BytesMut::zeroed(length);
        self.stream.read_exact(&mut body).await.expect("body");
        Some(self.shown(kind, body.freeze()))
    }

    async fn until_ready(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.next().await.expect("the session goes on");
            let ready = line.starts_with("ready");
            lines.push(line);
            if ready {
                return lines;
            }
        }
    }

    fn shown(&mut self, kind: u8, mut body: Bytes) -> String {
        match kind {
            b'R' => format!("auth {}", body.get_i32()),
            b'S' => format!("set {}={}", cstring(&mut body), cstring(&mut body)),
            b'K' => {
                self.pid = body.get_i32();
                self.secret = body;
                "key".to_owned()
            }
            b'Z' => format!("ready {}", char::from(body.get_u8())),
            b'T' => {
                let count = body.get_u16();
                let fields: Vec<String> = (0..count)
                    .map(|_| {
                        let name = cstring(&mut body);
                        body.advance(6);
                        let oid = body.get_u32();
                        body.advance(6);
                        format!("{name}:{oid}:{}", body.get_u16())
                    })
                    .collect();
                format!("columns {}", fields.join(" "))
            }
            b'D' => {
                let count = body.get_u16();
                let values: Vec<String> = (0..count)
                    .map(|_| match usize::try_from(body.get_i32()) {
                        Err(_) => "NULL".to_owned(),
                        Ok(length) => body.split_to(length).escape_ascii().to_string(),
                    })
                    .collect();
                format!("row {}", values.join("|"))
            }
            b'C' => format!("done {}", cstring(&mut body)),
            b'E' => {
                let mut shown = String::from("error");
                while body.first().is_some_and(|field| *field != 0) {
                    let field = body.get_u8();
                    let value = cstring(&mut body);
                    if matches!(field, b'C' | b'S') {
                        shown = format!("{shown} {value}");
                    }
                }
                shown
            }
            b't' => {
                let count = body.get_u16();
                let oids: Vec<String> = (0..count).map(|_| body.get_u32().to_string()).collect();
                format!("parameters {}", oids.join(" "))
            }
            b'v' => "negotiate".to_owned(),
            other => match other {
                b'1' => "parsed",
                b'2' => "bound",
                b'3' => "closed",
                b'n' => "no data",
                b's' => "suspended",
                b'I' => "empty",
                _ => "?",
            }
            .to_owned(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simple_protocol() {
    let served = Served::with_edits(4).await;
    let mut client = Client::connect(&served).await;
    assert_eq!(
        client.query("SELECT __time, page, added, ratio FROM edits ORDER BY added LIMIT 2").await,
        [
            "columns __time:1114:0 page:25:0 added:20:0 ratio:701:0",
            "row 2015-09-12 00:46:58.771|p0|0|0.5",
            "row 2015-09-12 00:46:59.771|p1|1|1.5",
            "done SELECT 2",
            "ready I"
        ]
    );
    assert_eq!(client.query("").await, ["empty", "ready I"]);
    assert_eq!(
        client.query("BEGIN; SELECT 1 AS a; SELEC; SELECT 2").await,
        ["done BEGIN", "columns a:20:0", "row 1", "done SELECT 1", "error ERROR 42601", "ready E"]
    );
    assert_eq!(client.query("SELECT 1").await, ["error ERROR 25P02", "ready E"]);
    assert_eq!(client.query("COMMIT").await, ["done ROLLBACK", "ready I"]);
    assert_eq!(
        client.query("SET TimeZone = 'Asia/Seoul'; SHOW timezone").await,
        ["set TimeZone=Asia/Seoul", "done SET", "columns TimeZone:25:0", "row Asia/Seoul", "done SHOW", "ready I"]
    );
    assert_eq!(
        client.query("SELECT __time FROM edits ORDER BY __time LIMIT 1").await[1],
        "row 2015-09-12 09:46:58.771"
    );
    assert_eq!(client.query("SET client_encoding = 'LATIN1'").await, ["error ERROR 22023", "ready I"]);
    assert_eq!(client.query("SELECT nothing FROM edits").await, ["error ERROR 42703", "ready I"]);
    assert_eq!(client.query("SELECT * FROM nowhere").await, ["error ERROR 42P01", "ready I"]);
    assert_eq!(client.query("SELECT no_such_function(1)").await, ["error ERROR 42883", "ready I"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_extended_protocol() {
    let served = Served::with_edits(5).await;
    let mut client = Client::connect(&served).await;
    let sql = "SELECT page, added FROM edits WHERE added >= $1 ORDER BY added";
    assert_eq!(
        client.extended(&[parse("s", sql, &[20]), describe(b'S', "s")]).await,
        ["parsed", "parameters 20", "columns page:25:0 added:20:0", "ready I"]
    );
    // Text in, text out; then binary in, binary out, with a row limit.
    assert_eq!(
        client.extended(&[bind("", "s", &[Some(b"3")], 0, 0), describe(b'P', ""), execute("", 0)]).await,
        ["bound", "columns page:25:0 added:20:0", "row p0|3", "row p1|4", "done SELECT 2", "ready I"]
    );
    let two = 2_i64.to_be_bytes();
    assert_eq!(
        client
            .extended(&[bind("p", "s", &[Some(&two)], 1, 1), describe(b'P', "p"), execute("p", 2), execute("p", 2)])
            .await,
        [
            "bound",
            "columns page:25:1 added:20:1",
            r"row p2|\x00\x00\x00\x00\x00\x00\x00\x02",
            r"row p0|\x00\x00\x00\x00\x00\x00\x00\x03",
            "suspended",
            r"row p1|\x00\x00\x00\x00\x00\x00\x00\x04",
            "done SELECT 1",
            "ready I"
        ]
    );
    assert_eq!(client.extended(&[parse("s", "SELECT 1", &[])]).await, ["error ERROR 42P05", "ready I"]);
    assert_eq!(client.extended(&[bind("", "none", &[], 0, 0), execute("", 0)]).await, ["error ERROR 26000", "ready I"]);
    assert_eq!(
        client.extended(&[parse("", "", &[]), bind("", "", &[], 0, 0), describe(b'P', ""), execute("", 0)]).await,
        ["parsed", "bound", "no data", "empty", "ready I"]
    );
    assert_eq!(
        client.extended(&[parse("", "BEGIN", &[]), bind("", "", &[], 0, 0), execute("", 0)]).await,
        ["parsed", "bound", "done BEGIN", "ready T"]
    );
    assert_eq!(client.query("DEALLOCATE ALL; ROLLBACK").await, ["done DEALLOCATE ALL", "done ROLLBACK", "ready I"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parameter_without_a_type_gets_the_columns() {
    let served = Served::with_edits(3).await;
    let mut client = Client::connect(&served).await;
    let sql = "SELECT COUNT(*) AS n FROM edits WHERE added = $1 AND page = $2";
    assert_eq!(
        client
            .extended(&[
                parse("", sql, &[]),
                describe(b'S', ""),
                bind("", "", &[Some(b"1"), Some(b"p1")], 0, 0),
                execute("", 0)
            ])
            .await,
        ["parsed", "parameters 20 25", "columns n:20:0", "bound", "row 1", "done SELECT 1", "ready I"]
    );
    let bad = client.extended(&[parse("", sql, &[20]), bind("", "", &[Some(b"x"), None], 0, 0)]).await;
    assert_eq!(bad, ["parsed", "error ERROR 22P02", "ready I"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors() {
    let served = Served::with_edits(3).await;
    let mut client = Client::connect(&served).await;
    let declare = "BEGIN; DECLARE c CURSOR FOR SELECT added FROM edits ORDER BY added";
    assert_eq!(client.query(declare).await, ["done BEGIN", "done DECLARE CURSOR", "ready T"]);
    assert_eq!(
        client.query("FETCH 2 FROM c").await,
        ["columns added:20:0", "row 0", "row 1", "done FETCH 2", "ready T"]
    );
    assert_eq!(client.query("FETCH ALL FROM c").await, ["columns added:20:0", "row 2", "done FETCH 1", "ready T"]);
    assert_eq!(client.query("CLOSE c; COMMIT").await, ["done CLOSE CURSOR", "done COMMIT", "ready I"]);
    assert_eq!(client.query("FETCH c").await, ["error ERROR 34000", "ready I"]);
}

/// A statement that takes long enough to be stopped.
const SLOW: &str = "SELECT COUNT(*) FROM edits a, edits b, edits c, edits d, edits e, edits f, edits g";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_request_stops_what_runs() {
    let served = Served::with_edits(60).await;
    let mut client = Client::connect(&served).await;
    client.send(&[message(b'Q', &[SLOW.as_bytes(), b"\0"].concat())]).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let request =
        |secret: &[u8]| [&[0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e], &client.pid.to_be_bytes()[..], secret].concat();
    for secret in [[0; 4].as_slice(), &client.secret] {
        let mut canceller = TcpStream::connect(served.postgres).await.expect("connected");
        canceller.write_all(&request(secret)).await.expect("sent");
        assert_eq!(canceller.read(&mut [0]).await.expect("closed"), 0, "nothing is said");
    }
    assert_eq!(client.until_ready().await, ["columns count:20:0", "error ERROR 57014", "ready I"]);
    assert_eq!(client.query("SELECT 1 AS a").await.len(), 4, "the session goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_stops_its_query() {
    let served = Served::with_edits(60).await;
    let mut client = Client::connect(&served).await;
    client.send(&[message(b'Q', &[SLOW.as_bytes(), b"\0"].concat())]).await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(served.node.query().running().len(), 1);
    drop(client);
    for _ in 0..100 {
        if served.node.query().running().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the query still runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bytes_end_only_their_session() {
    let served = Served::start().await;
    for bytes in [message(b'P', b"cut"), vec![b'Q', 0xff, 0xff, 0xff, 0xff], message(b'z', b""), vec![b'Q', 0, 0, 0, 0]]
    {
        let mut client = Client::connect(&served).await;
        client.send(&[bytes]).await;
        assert_eq!(client.next().await.as_deref(), Some("error FATAL 08P01"));
        assert_eq!(client.next().await, None, "closed");
    }
    let mut client = Client::connect(&served).await;
    assert_eq!(client.query("SELECT 1 AS a").await, ["columns a:20:0", "row 1", "done SELECT 1", "ready I"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_session_too_many_is_told_so() {
    let served = Served::start_with(|config| config.listen.connections_max = 1).await;
    let first = Client::connect(&served).await;
    let mut stream = TcpStream::connect(served.postgres).await.expect("connected");
    stream.write_all(b"\0\0\0\x12\0\x03\0\0user\0ann\0\0").await.expect("startup");
    let mut second = Client { stream, pid: 0, secret: Bytes::new() };
    assert_eq!(second.next().await.as_deref(), Some("error FATAL 53300"));
    assert_eq!(second.next().await, None, "closed");
    drop(first);
}
