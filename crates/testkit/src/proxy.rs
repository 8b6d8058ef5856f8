//! A relay on loopback between a client and a server, which breaks chosen requests in chosen ways.
//!
//! It reads requests one by one: whole frames of Kafka's protocol, or what came in one piece of any other. A rule
//! says which requests are meant, what happens to them, and how often; without one everything passes. The heart of
//! it is [`Fault::SwallowAnswer`]: the server has carried the request out, and the client never learns it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Most bytes of one frame of Kafka's protocol, and so of what a connection holds.
const MOST_FRAME_BYTES: usize = 128 << 20;
/// Most bytes read at once of other protocols.
const PIECE_BYTES: usize = 64 << 10;

/// How long a server whose client was cut off may go on talking.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// How a connection is cut into requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// What one read brings: HTTP, Redis, Postgres, where a client waits for an answer before it asks again.
    Stream,
    /// Length-prefixed frames with correlation ids; clients have several requests in flight.
    Kafka,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It goes on after this time.
    Delay(Duration),
    /// It goes on and is carried out; instead of passing the answer on, the connection is cut.
    SwallowAnswer,
    /// Half of it goes on, then the connection is cut.
    Cut,
    /// It is held until [`Proxy::calm`] and then goes on, whether its client still waits or not.
    Stall,
}

type Meant = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

struct Rule {
    fault: Fault,
    meant: Meant,
    left: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    up: bool,
    /// Connections of an earlier generation end.
    generation: u64,
}

struct Shared {
    protocol: Protocol,
    server: Mutex<Option<String>>,
    rules: Mutex<Vec<Rule>>,
    hits: AtomicU64,
    link: watch::Sender<Link>,
    /// Grows when stalled requests may go on.
    calm: watch::Sender<u64>,
}

/// A listening relay. It stops listening with the runtime that it was made on.
#[derive(Clone)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.address)
            .field("hits", &self.hits())
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// Listens, for a server that is named later: a broker must know the address that it tells its clients.
    ///
    /// # Errors
    /// The machine has no port left.
    pub async fn listen(protocol: Protocol) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            protocol,
            server: Mutex::default(),
            rules: Mutex::default(),
            hits: AtomicU64::new(0),
            link: watch::Sender::new(Link {
                up: true,
                generation: 0,
            }),
            calm: watch::Sender::new(0),
        });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared })
    }

    /// Listens in front of `server`, `host:port`.
    ///
    /// # Errors
    /// As [`Self::listen`].
    pub async fn before(server: impl Into<String>, protocol: Protocol) -> Result<Self> {
        let proxy = Self::listen(protocol).await?;
        proxy.lead_to(server);
        Ok(proxy)
    }

    /// In front of the server of `url`, `scheme://[account@]host[:port][/…]`; also the URL that leads through it.
    ///
    /// # Errors
    /// As [`Self::listen`]; or `url` is none.
    pub async fn through(url: &str, default_port: u16) -> Result<(Self, String)> {
        let (scheme, rest) = url
            .split_once("://")
            .with_context(|| format!("{url} is no URL"))?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let (account, host) = match authority.rsplit_once('@') {
            Some((account, host)) => (format!("{account}@"), host),
            None => (String::new(), authority),
        };
        let server = if host.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:{default_port}")
        };
        let proxy = Self::before(server, Protocol::Stream).await?;
        let url = format!("{scheme}://{account}{}{path}", proxy.address);
        Ok((proxy, url))
    }

    /// Names the server; connections made before this are closed at once.
    pub fn lead_to(&self, server: impl Into<String>) {
        *lock(&self.shared.server) = Some(server.into());
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks the next `times` requests that are `meant`. Where several rules mean a request, the oldest one holds.
    pub fn arm(&self, fault: Fault, times: u32, meant: impl Fn(&[u8]) -> bool + Send + Sync + 'static) {
        lock(&self.shared.rules).push(Rule {
            fault,
            meant: Arc::new(meant),
            left: times,
        });
    }

    /// Lets everything pass from now on, what was stalled first.
    pub fn calm(&self) {
        lock(&self.shared.rules).clear();
        self.shared.calm.send_modify(|calm| *calm += 1);
    }

    /// How many requests were broken so far.
    pub fn hits(&self) -> u64 {
        self.shared.hits.load(Ordering::Acquire)
    }

    /// Cuts every connection there is; new ones are taken.
    pub fn cut(&self) {
        self.shared.link.send_modify(|link| link.generation += 1);
    }

    /// Down, it ends the connections there are and those that come.
    pub fn set_up(&self, up: bool) {
        self.shared.link.send_modify(|link| {
            link.up = up;
            link.generation += 1;
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // What goes wrong on a connection ends it, and both sides see that.
            drop(relay(client, &shared).await);
        });
    }
}

async fn relay(client: TcpStream, shared: &Shared) -> Result<()> {
    let mut link = shared.link.subscribe();
    let born = *link.borrow_and_update();
    let server = lock(&shared.server).clone();
    let Some(server) = server.filter(|_| born.up) else {
        return Ok(());
    };
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (swallow, swallowed) = watch::channel(Swallow::Nothing);
    let done = async {
        // Whichever side ends first ends the connection, but what the server still says after its client's last
        // request is passed on.
        tokio::select! {
            biased;
            ended = answers(&mut from_server, to_client, shared.protocol, swallowed) => ended,
            ended = requests(from_client, &mut to_server, shared, swallow) => ended,
        }
    };
    let ended = tokio::select! {
        ended = done => ended,
        _ = link.wait_for(|now| now.generation != born.generation) => Ok(()),
    };
    // The client sees its end at once. To the server it is an end in order, whose last words somebody hears: a
    // ClickHouse that writes into a connection which is gone may end as a whole.
    tokio::spawn(async move {
        drop(to_server.shutdown().await);
        let mut nowhere = tokio::io::sink();
        drop(tokio::time::timeout(LAST_WORDS, tokio::io::copy(&mut from_server, &mut nowhere)).await);
    });
    ended
}

/// Which answer is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swallow {
    Nothing,
    Next,
    Correlation([u8; 4]),
}

async fn requests(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    swallow: watch::Sender<Swallow>,
) -> Result<()> {
    let mut unit = Vec::new();
    while read(&mut from, shared.protocol, &mut unit).await? {
        match shared.judge(&unit) {
            None => {}
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::Cut) => {
                let half = unit.get(..unit.len() / 2).unwrap_or_default();
                to.write_all(half).await?;
                to.flush().await?;
                return Ok(());
            }
            Some(Fault::Stall) => {
                let mut calm = shared.calm.subscribe();
                let before = *calm.borrow_and_update();
                calm.wait_for(|calm| *calm > before).await?;
            }
            Some(Fault::SwallowAnswer) => {
                let which = match (shared.protocol, correlation(&unit, 8)) {
                    (Protocol::Kafka, Some(id)) => Swallow::Correlation(id),
                    _ => Swallow::Next,
                };
                swallow.send_replace(which);
            }
        }
        to.write_all(&unit).await?;
    }
    to.shutdown().await?;
    // The answers end the connection.
    std::future::pending().await
}

async fn answers(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    protocol: Protocol,
    swallow: watch::Receiver<Swallow>,
) -> Result<()> {
    let mut unit = Vec::new();
    while read(&mut from, protocol, &mut unit).await? {
        let swallowed = match *swallow.borrow() {
            Swallow::Nothing => false,
            Swallow::Next => true,
            Swallow::Correlation(id) => correlation(&unit, 4) == Some(id),
        };
        if swallowed {
            return Ok(());
        }
        to.write_all(&unit).await?;
    }
    Ok(())
}

/// The correlation id of a frame; a request has its key and version before it.
fn correlation(frame: &[u8], at: usize) -> Option<[u8; 4]> {
    frame.get(at..at + 4)?.try_into().ok()
}

/// Reads the next request or answer into `unit`; false at the end.
async fn read(from: &mut (impl AsyncRead + Unpin), protocol: Protocol, unit: &mut Vec<u8>) -> Result<bool> {
    unit.clear();
    match protocol {
        Protocol::Stream => {
            unit.resize(PIECE_BYTES, 0);
            let read = from.read(unit).await?;
            unit.truncate(read);
            Ok(read > 0)
        }
        Protocol::Kafka => {
            let mut length = [0; 4];
            if from.read(&mut length[..1]).await? == 0 {
                return Ok(false);
            }
            from.read_exact(&mut length[1..]).await?;
            let bytes = usize::try_from(u32::from_be_bytes(length))?;
            if bytes > MOST_FRAME_BYTES {
                bail!("a frame of {bytes} bytes");
            }
            unit.extend_from_slice(&length);
            unit.resize(4 + bytes, 0);
            from.read_exact(unit.get_mut(4..).unwrap_or_default()).await?;
            Ok(true)
        }
    }
}

impl Shared {
    /// What happens to this request.
    fn judge(&self, unit: &[u8]) -> Option<Fault> {
        let mut rules = lock(&self.rules);
        let armed = rules
            .iter_mut()
            .find(|rule| rule.left > 0 && (rule.meant)(unit))?;
        armed.left -= 1;
        self.hits.fetch_add(1, Ordering::AcqRel);
        Some(armed.fault)
    }
}

/// Requests of Kafka's protocol by their key: [`PRODUCE`], [`OFFSET_COMMIT`].
pub fn kafka_request(key: u16) -> impl Fn(&[u8]) -> bool + Send + Sync + 'static {
    move |frame| frame.get(4..6) == Some(key.to_be_bytes().as_slice())
}

/// The key of produce requests.
pub const PRODUCE: u16 = 0;
/// The key of offset commits.
pub const OFFSET_COMMIT: u16 = 8;

/// Whether `text` occurs in a request, as it is or with the characters of a URL's query escaped.
pub fn mentions(text: &str) -> impl Fn(&[u8]) -> bool + Send + Sync + 'static {
    let forms = [text.to_owned(), text.replace(' ', "+"), text.replace(' ', "%20")];
    move |unit| {
        forms
            .iter()
            .any(|form| unit.windows(form.len()).any(|window| window == form.as_bytes()))
    }
}
