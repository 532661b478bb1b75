use super::*;
use crate::rows::Reader;
use crate::spec::InputFormat;

/// Every row of a record as `name=value`, a null as `-`.
fn read(format: InputFormat, text: &str) -> Vec<String> {
    let mut reader = Reader::new(&format);
    let names: Vec<&str> = match &format {
        InputFormat::Csv(lines) | InputFormat::Tsv(lines) => lines.columns.iter().map(String::as_str).collect(),
        InputFormat::Json {} => Vec::new(),
    };
    let mut at = match reader.begin(text) {
        Ok(at) => at,
        Err(error) => return vec![error.to_string()],
    };
    let mut rows = Vec::new();
    loop {
        match reader.next(text, &mut at) {
            Ok(true) => {}
            Ok(false) => return rows,
            Err(error) => {
                rows.push(error.to_string());
                return rows;
            }
        }
        let row = reader.row();
        let texts = row.texts(text);
        let cells = names.iter().enumerate().map(|(slot, name)| match row.cell(slot) {
            Cell::Text(span) | Cell::Array(span, _) => format!("{name}={}", texts.get(span)),
            Cell::Missing => format!("{name}?"),
            _ => format!("{name}-"),
        });
        rows.push(cells.collect::<Vec<_>>().join(" "));
    }
}

fn lines(columns: &str) -> Lines {
    Lines { columns: columns.split(' ').map(str::to_owned).collect(), ..Lines::default() }
}

#[test]
fn csv_as_rfc_4180() {
    let csv = || InputFormat::Csv(lines("a b c"));
    let cases: &[(&str, &[&str])] = &[
        ("1,2,3", &["a=1 b=2 c=3"]),
        ("1,2,3\n4,5,6\r\n", &["a=1 b=2 c=3", "a=4 b=5 c=6"]),
        ("1,,3", &["a=1 b- c=3"]),
        ("1,\"\",3", &["a=1 b= c=3"]),
        (",,", &["a- b- c-"]),
        ("1", &["a=1 b? c?"]),
        ("1,2,3,4,5", &["a=1 b=2 c=3"]),
        ("\"x,y\",\"say \"\"hi\"\"\",\"two\nlines\"\n7,8,9", &["a=x,y b=say \"hi\" c=two\nlines", "a=7 b=8 c=9"]),
        ("\"x\"tail,2,\"3\"\r\n", &["a=xtail b=2 c=3"]),
        ("a\"b,2,3", &["a=a\"b b=2 c=3"]),
        ("\n\r\n1,2,3\n\n", &["a=1 b=2 c=3"]),
        ("1,2,3\n\"open,2", &["a=1 b=2 c=3", "a quote is not closed at byte 6"]),
        ("é,한글,🦀", &["a=é b=한글 c=🦀"]),
        ("", &[]),
    ];
    for (text, expected) in cases {
        assert_eq!(read(csv(), text), *expected, "{text:?}");
    }
}

#[test]
fn tsv_has_no_quotes_and_any_delimiter() {
    assert_eq!(read(InputFormat::Tsv(lines("a b")), "\"x\"\ty\n1\t"), ["a=\"x\" b=y", "a=1 b-"]);
    let pipes = Lines { delimiter: Some("|".to_owned()), list_delimiter: Some(";".to_owned()), ..lines("a b c") };
    assert_eq!(read(InputFormat::Tsv(pipes), "1|x;y;\"|"), [r#"a=1 b=["x","y","\""] c-"#]);
    let wide = Lines { delimiter: Some("::".to_owned()), ..lines("a b") };
    assert_eq!(read(InputFormat::Tsv(wide), "1::2::3"), ["a=1 b=2"]);
}

#[test]
fn header_lines_are_of_every_record() {
    let skipping = Lines { skip_header_rows: 2, ..lines("a b") };
    assert_eq!(read(InputFormat::Csv(skipping), "x\ny\n1,2"), ["a=1 b=2"]);
    let named = Lines { find_columns_from_header: true, skip_header_rows: 1, ..Lines::default() };
    let mut reader = Reader::new(&InputFormat::Csv(named));
    let text = "comment\nb,a\n2,1\n";
    let mut at = reader.begin(text).expect("a header");
    assert!(reader.next(text, &mut at).expect("a row"));
    let texts = reader.row().texts(text);
    let Cell::Text(span) = reader.row().cell(1) else { panic!("no text") };
    assert_eq!(texts.get(span), "1", "the second name of the header");
    assert_eq!(
        read(InputFormat::Csv(Lines { skip_header_rows: usize::MAX, ..lines("a") }), "1\n2"),
        Vec::<String>::new()
    );
}
