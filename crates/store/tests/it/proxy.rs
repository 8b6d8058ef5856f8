//! A relay between a client and a server that a test can cut.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Relays connections to a server while it is up. Down, it ends those there are and those that come.
pub(crate) struct Proxy {
    address: SocketAddr,
    up: Arc<watch::Sender<bool>>,
}

impl Proxy {
    /// In front of `server`, `host:port`.
    pub(crate) async fn before(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let up = Arc::new(watch::Sender::new(true));
        let switch = Arc::clone(&up);
        // Ends with the test's runtime.
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut state, server) = (switch.subscribe(), server.clone());
                tokio::spawn(async move {
                    if !*state.borrow() {
                        return;
                    }
                    let Ok(mut upstream) = TcpStream::connect(server).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut upstream) => {}
                        _ = state.wait_for(|up| !up) => {}
                    }
                });
            }
        });
        Self { address, up }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set_up(&self, up: bool) {
        self.up.send_replace(up);
    }
}

/// The URL with the proxy in the server's place.
pub(crate) async fn through(url: &str, default_port: u16) -> (Proxy, String) {
    let (scheme, rest) = url.split_once("://").expect("a url");
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let (account, host) = authority
        .rsplit_once('@')
        .map_or((None, authority), |(account, host)| (Some(account), host));
    let server = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:{default_port}")
    };
    let proxy = Proxy::before(server).await;
    let account = account.map(|account| format!("{account}@")).unwrap_or_default();
    let url = format!("{scheme}://{account}{}{path}", proxy.address());
    (proxy, url)
}
