//! What keeps a late insert out: the connection was there before, there is no other, and its lease ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millrace_warehouse::{Block, Code, Config, Error, Insert, Outcome, TableName};
use tokio::net::{TcpListener, TcpStream};

use crate::place::{DEADLINE, Place, raw, row, unhurried};

async fn one_row(place: &Place) -> (TableName, Block) {
    let (table, schema) = place.events().await;
    let event = raw(r#"{"type":"track"}"#);
    let mut blocks = place.encode(&table, &schema, &[row(0, &event)]).await.blocks;
    (table, blocks.pop().expect("a block"))
}

fn insert<'a>(table: &'a TableName, block: &'a Block, id: &'a str) -> Insert<'a> {
    Insert {
        table,
        block,
        token: "t",
        query_id: id,
        deadline: DEADLINE,
    }
}

fn short_lease(url: &str) -> Config {
    Config {
        lease: Duration::from_secs(1),
        ..unhurried(url)
    }
}

async fn rows(place: &Place, table: &TableName) -> String {
    let sql = format!("SELECT count() FROM {}", table.quoted());
    place.rows(&sql).await.concat()
}

#[tokio::test]
async fn a_block_that_comes_later_than_its_lease_is_refused_also_where_the_connection_stands() {
    let place = Place::new().await;
    let (table, block) = one_row(&place).await;
    let warehouse = short_lease(&place.url).build();
    let line = warehouse.line().await.expect("open");
    // What a process that is stopped here does when it goes on.
    tokio::time::sleep(warehouse.latest_arrival()).await;
    let outcome = warehouse
        .insert_over(line, insert(&table, &block, place.database.as_str()))
        .await;
    match &outcome {
        Outcome::Definite(Error::Server { code, .. }) => assert_eq!(*code, Code::SESSION_NOT_FOUND),
        // A server with a short keep-alive has closed it, and nothing connects anew.
        Outcome::Definite(Error::Connect(_)) => {}
        other => panic!("the server looks at the lease before anything else: {other:?}"),
    }
    assert_eq!(rows(&place, &table).await, "0");
    // Over a line whose lease lasts the same block is taken.
    let id = format!("{}-again", place.database);
    let taken = unhurried(&place.url)
        .build()
        .insert(insert(&table, &block, &id))
        .await;
    assert!(matches!(taken, Outcome::Applied), "{taken:?}");
    assert_eq!(rows(&place, &table).await, "1");
}

#[tokio::test]
async fn a_line_whose_connection_is_gone_is_not_replaced() {
    let place = Place::new().await;
    let (table, block) = one_row(&place).await;
    let server = place
        .url
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let connections = Arc::new(AtomicUsize::new(0));
    let cut = Arc::new(tokio::sync::Notify::new());
    let between = tokio::spawn({
        let (connections, cut) = (Arc::clone(&connections), Arc::clone(&cut));
        async move {
            while let Ok((mut near, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let mut far = TcpStream::connect(&server).await.expect("the server");
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = cut.notified() => {}
                }
            }
        }
    });
    let warehouse = unhurried(&format!("http://{address}")).build();
    for id in ["a", "b", "c"] {
        let id = format!("{}-{id}", place.database);
        let mut outcome = warehouse.insert(insert(&table, &block, &id)).await;
        // A server short of room may have closed the idle line: then nothing was sent.
        while matches!(outcome, Outcome::Definite(_)) {
            outcome = warehouse.insert(insert(&table, &block, &id)).await;
        }
        assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    }
    let line = warehouse.line().await.expect("idle");
    let before = connections.load(Ordering::SeqCst);
    cut.notify_one();
    // The client has noticed once the other side is gone; either way nothing connects anew.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let outcome = warehouse.insert_over(line, insert(&table, &block, "gone")).await;
    assert!(!matches!(outcome, Outcome::Applied), "{outcome:?}");
    assert_eq!(connections.load(Ordering::SeqCst), before);
    drop(between);
}
