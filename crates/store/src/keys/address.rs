//! What becomes of a client's address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// What is kept of the address that events come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpPolicy {
    /// All of it.
    #[default]
    Keep,
    /// Its network: /24 of IPv4, /48 of IPv6.
    Anonymize,
    /// Nothing.
    Drop,
}

impl IpPolicy {
    /// What may be written down of an address.
    pub fn apply(self, address: IpAddr) -> Option<IpAddr> {
        match (self, address.to_canonical()) {
            (Self::Keep, address) => Some(address),
            (Self::Anonymize, IpAddr::V4(address)) => {
                let [a, b, c, _] = address.octets();
                Some(Ipv4Addr::new(a, b, c, 0).into())
            }
            (Self::Anonymize, IpAddr::V6(address)) => {
                let [a, b, c, ..] = address.segments();
                Some(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into())
            }
            (Self::Drop, _) => None,
        }
    }

    /// Its name in Postgres and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Anonymize => "anonymize",
            Self::Drop => "drop",
        }
    }
}

impl fmt::Display for IpPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for IpPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let all = [Self::Keep, Self::Anonymize, Self::Drop];
        let found = all.into_iter().find(|policy| policy.as_str() == text);
        found.ok_or(Error::Invalid {
            what: "a policy for addresses",
            reason: "is `keep`, `anonymize` or `drop`",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_kept_cut_to_its_network_or_dropped() {
        for (policy, address, kept) in [
            (IpPolicy::Keep, "203.0.113.9", Some("203.0.113.9")),
            (IpPolicy::Anonymize, "203.0.113.9", Some("203.0.113.0")),
            (IpPolicy::Anonymize, "::ffff:203.0.113.9", Some("203.0.113.0")),
            (IpPolicy::Anonymize, "2001:db8:1:2:3:4:5:6", Some("2001:db8:1::")),
            (IpPolicy::Drop, "203.0.113.9", None),
        ] {
            let applied = policy.apply(address.parse().unwrap());
            assert_eq!(applied.map(|address| address.to_string()).as_deref(), kept);
            assert_eq!(policy.to_string().parse::<IpPolicy>().unwrap(), policy);
        }
    }
}
