//! The services' own Postgres over TLS.

use millrace_store::postgres::{Config, Postgres};
use millrace_testkit::postgres::Server;
use millrace_testkit::tls;

#[tokio::test]
async fn the_pool_asks_a_server_that_proves_itself_and_says_why_it_does_not_ask_another() {
    let server = Server::start_with_tls().await.expect("a PostgreSQL");
    let pool = |authority: std::path::PathBuf| {
        let url = server.url();
        let url = format!("{url}?sslmode=verify-full&sslrootcert={}", authority.display());
        Postgres::new(&Config::new(url)).expect("a pool")
    };
    pool(tls::authority()).ping().await.expect("answered over TLS");
    let error = pool(tls::stranger()).ping().await.expect_err("not proven");
    let mut said = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(one) = cause {
        said.push_str(&format!("{one}: "));
        cause = one.source();
    }
    assert!(said.contains("UnknownIssuer"), "{said}");
}
