//! Who sent a request, behind proxies that are trusted to say so.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;

const FORWARDED: &str = "x-forwarded-for";

/// The networks of the proxies in front of the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Proxies(Vec<Network>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    bits: u128,
    mask: u128,
}

impl Proxies {
    /// # Errors
    /// With the text that is no network.
    pub(super) fn new(networks: &[String]) -> Result<Self, String> {
        networks
            .iter()
            .map(|text| Network::of(text).ok_or_else(|| text.clone()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The nearest address that is not one of the proxies: every proxy appends the address it was called
    /// from, so only what stands right of the first stranger was written by a friend.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut nearest = peer.to_canonical();
        if self.0.is_empty() {
            return nearest;
        }
        let values = headers.get_all(FORWARDED);
        let mut hops = values
            .iter()
            .flat_map(|value| value.to_str().unwrap_or_default().split(','))
            .rev();
        while self.trusts(nearest) {
            let Some(hop) = hops.next().and_then(address) else {
                break;
            };
            nearest = hop;
        }
        nearest
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let bits = bits(address);
        self.0.iter().any(|network| bits & network.mask == network.bits)
    }
}

impl Network {
    /// `10.0.0.0/8`, `fd00::/8`, or a single address.
    fn of(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let (offset, width) = if address.is_ipv4() { (96, 32) } else { (0, 128) };
        let length = offset
            + length
                .filter(|length| *length <= width)
                .or(length.is_none().then_some(width))?;
        let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
        Some(Self {
            bits: bits(address) & mask,
            mask,
        })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => Ipv6Addr::to_bits(address),
    }
}

/// An address, alone or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let alone = text.parse::<IpAddr>();
    let address = alone.or_else(|_| text.parse::<std::net::SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let trusted: Vec<_> = trusted.iter().map(|text| (*text).to_owned()).collect();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED, HeaderValue::from_str(value).unwrap());
        }
        Proxies::new(&trusted)
            .unwrap()
            .client(peer.parse().unwrap(), &headers)
            .to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let forged = ["6.6.6.6, 203.0.113.9"];
        assert_eq!(client(&[], "10.0.0.1", &forged), "10.0.0.1");
        assert_eq!(client(&["192.168.0.0/16"], "10.0.0.1", &forged), "10.0.0.1");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &forged), "203.0.113.9");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(
            client(&["0.0.0.0/0", "::/0"], "10.0.0.1", &forged),
            "6.6.6.6",
            "the far end of a chain of friends"
        );
    }

    #[test]
    fn chains_of_proxies_are_followed_through_several_headers_and_ports() {
        let chain = ["6.6.6.6", "203.0.113.9:4711, [fd00::2]:80", "10.0.0.2"];
        assert_eq!(
            client(&["10.0.0.0/8", "fd00::/8"], "::ffff:10.0.0.1", &chain),
            "203.0.113.9"
        );
        assert_eq!(client(&["10.0.0.1"], "10.0.0.1", &chain), "10.0.0.2");
    }

    #[test]
    fn what_is_no_address_ends_the_chain() {
        assert_eq!(
            client(&["10.0.0.0/8"], "10.0.0.1", &["1.2.3.4, unknown"]),
            "10.0.0.1"
        );
    }

    #[test]
    fn networks_are_told_from_other_text() {
        for text in ["10.0.0.0/33", "10/8", "fd00::/129", "", "a/8", "10.0.0.0/"] {
            assert!(Network::of(text).is_none(), "{text}");
        }
    }
}
