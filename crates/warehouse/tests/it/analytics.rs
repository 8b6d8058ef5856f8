//! Every query of `docs/analytics.md` gives the answer that stands below it, on the shop that the page describes.

use millrace_warehouse::sample::Shop;
use millrace_warehouse::{Outcome, Row};

use crate::place::{Place, id, raw};

const PAGE: &str = include_str!("../../../../docs/analytics.md");

const PEOPLE: u32 = 120;

async fn open_the_shop(place: &Place) {
    let (table, schema) = place.events().await;
    let mut events = Vec::new();
    for person in 0..PEOPLE {
        for (at, event) in Shop::of_the_page().journey(person) {
            events.push((at, raw(&event.to_string())));
        }
    }
    let ids: Vec<_> = (0..events.len()).map(|number| format!("m-{number}")).collect();
    let rows: Vec<_> = (0..)
        .zip(&events)
        .zip(&ids)
        .map(|((seq, (at, event)), message_id)| Row {
            id: id(seq),
            received_at: *at,
            sent_at: None,
            source: "shop",
            workspace: "ws_test",
            message_id,
            event,
        })
        .collect();
    let encoded = place.encode(&table, &schema, &rows).await;
    assert_eq!(encoded.refused, [], "every row fits");
    for (index, block) in encoded.blocks.iter().enumerate() {
        let outcome = place.insert(&table, block, &format!("shop-{index}")).await;
        assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    }
}

/// The queries of the page, each with the answer below it.
fn queries() -> Vec<(&'static str, &'static str)> {
    let mut queries = Vec::new();
    for section in PAGE.split("```sql\n").skip(1) {
        let (sql, rest) = section.split_once("```").expect("a query ends");
        if let Some((_, answer)) = rest.trim_start().split_once("```text\n") {
            let (answer, _) = answer.split_once("```").expect("an answer ends");
            queries.push((sql.trim().trim_end_matches(';'), answer));
        }
    }
    queries
}

/// Lines with one space between words, however they are aligned.
fn lines(text: &str) -> Vec<String> {
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect()
}

#[tokio::test]
async fn every_query_of_the_page_gives_the_answer_below_it() {
    let place = Place::new().await;
    open_the_shop(&place).await;
    let queries = queries();
    assert_eq!(queries.len(), 20);
    let client = place
        .warehouse
        .client()
        .clone()
        .with_database(place.database.as_str());
    let mut wrong = Vec::new();
    for (sql, answer) in queries {
        let cursor = client.query(&sql.replace('?', "??")).fetch_bytes("TSV");
        let bytes = cursor.expect("a query").collect().await;
        let bytes = bytes.unwrap_or_else(|error| error.to_string().into());
        let found = lines(std::str::from_utf8(&bytes).expect("UTF-8"));
        if found != lines(answer) {
            wrong.push(format!(
                "{sql}\ngives\n{}\ninstead of\n{answer}",
                found.join("\n")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
