//! Postgres and Redis: repositories that return domain types.
//!
//! Postgres holds the configuration (workspaces, keys, functions, chains) and its schema is owned here, with
//! its migrations. Redis holds what may be lost without losing an event: the memory of `message_id`s.
//!
//! No row, client or SQL type leaves this crate. Every call has a deadline, every pool and queue a size, and
//! a store that is away gives an [`Error`] whose [`Error::retry`] says whether waiting helps. Nothing here
//! retries by itself: the caller knows what an event or an operator can wait for.

pub mod chains;
pub mod dedup;
pub mod error;
pub mod fields;
pub mod functions;
pub mod id;
pub mod keys;
pub mod limits;
pub mod name;
pub mod notice;
pub mod postgres;
pub mod redis;
pub mod rules;
pub mod secret;
pub mod tokens;
pub mod workspaces;

pub use chains::Chains;
pub use dedup::Dedup;
pub use error::{Entity, Error, Part, Retry};
pub use fields::Fields;
pub use functions::Functions;
pub use id::{ChainId, DestinationId, FunctionId, KeyId, OrganizationId, SourceId, TokenId, WorkspaceId};
pub use keys::Keys;
pub use limits::Limiter;
pub use name::Name;
pub use notice::Notice;
pub use postgres::Postgres;
pub use redis::Redis;
pub use tokens::Tokens;
pub use workspaces::Workspaces;
