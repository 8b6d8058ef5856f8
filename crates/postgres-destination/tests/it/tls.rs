//! A connection that is to be proven is proven, or there is none.

use std::error::Error as _;
use std::path::Path;

use millrace_postgres_destination::{Config, Error};
use millrace_testkit::postgres::{Database, Server};
use millrace_testkit::tls;

use super::{Bench, Outcome, destination_at, token};

/// An address with the certificate of an authority that the server must be signed by.
fn proven(url: &str, authority: &Path) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!(
        "{url}{separator}sslmode=verify-full&sslrootcert={}",
        authority.display()
    )
}

#[tokio::test]
async fn rows_go_over_tls_to_a_server_that_proves_itself_and_to_no_other() {
    let server = Server::start_with_tls().await.expect("a PostgreSQL");
    let database = Database::create_on(server.url()).await.expect("a database");
    let url = database.url().to_owned();
    let bench = Bench {
        database,
        destination: destination_at(&proven(&url, &tls::authority())),
        table: "postgres-dst_test.events".parse().expect("a name"),
    };
    let blocks = bench.blocks(0..20).await;
    for (number, block) in (1..).zip(&blocks) {
        let outcome = bench.insert(&bench.destination, block, &token(number)).await;
        assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    }
    assert_eq!(bench.count().await, 20);
    let client = bench.database.client().await.expect("connected");
    let ways = "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                WHERE application_name = 'millrace-bulker'";
    let ways = client.query(ways, &[]).await.expect("answered");
    let ways: Vec<bool> = ways.iter().map(|row| row.get(0)).collect();
    assert_eq!(ways, [true], "every connection is encrypted");

    let elsewhere = url.replace("127.0.0.1", "elsewhere.test");
    let elsewhere = format!("{elsewhere}?hostaddr=127.0.0.1");
    for (why, address, words) in [
        (
            "signed by somebody else",
            proven(&url, &tls::stranger()),
            "UnknownIssuer",
        ),
        (
            "of another host",
            proven(&elsewhere, &tls::authority()),
            "elsewhere.test",
        ),
        (
            "not known to this system",
            format!("{url}?sslmode=require"),
            "UnknownIssuer",
        ),
    ] {
        let error = destination_at(&address).ping().await.expect_err(why);
        assert!(matches!(error, Error::Distrusted(_)), "{why}: {error:?}");
        let mut said = error.to_string();
        let mut cause = error.source();
        while let Some(one) = cause {
            said.push_str(&format!(": {one}"));
            cause = one.source();
        }
        assert!(
            said.contains("sslrootcert") && said.contains(words),
            "{why}: {said}"
        );
    }
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to_where_tls_is_asked_for() {
    let bench = Bench::start().await;
    let destination = destination_at(&proven(bench.database.url(), &tls::authority()));
    let error = destination
        .ping()
        .await
        .expect_err("nothing goes over an open connection");
    assert!(matches!(error, Error::Connect(_)), "{error:?}");
    let said = error.source().map(ToString::to_string).unwrap_or_default();
    assert!(said.contains("TLS"), "{said}");
}

#[test]
fn what_an_address_asks_for_in_vain_is_said_without_its_password() {
    let url = "postgres://u:very-secret@localhost/db?sslmode=prefer";
    let config = Config::new("d", "g", url);
    assert!(!format!("{config:?}").contains("very-secret"));
    let error = config.build().expect_err("neither open nor proven").to_string();
    assert!(
        error.contains("sslmode") && !error.contains("very-secret"),
        "{error}"
    );
}
