//! A shop to try queries on: people who come by a channel, look, order and come back, as many as one likes.
//!
//! The shop of `docs/analytics.md` is [`Shop::of_the_page`]; what the page asks of it has answers that can be counted
//! by hand. With a seed the same habits are dealt out at random, and the answers keep their proportions.

use millrace_event::Timestamp;
use serde_json::{Value, json};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Monday, 2 November 2026, at midnight UTC, in milliseconds.
pub const MONDAY: i64 = 1_793_577_600_000;

/// Who comes when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shop {
    /// Midnight of the first day, in milliseconds since the epoch.
    pub from: i64,
    /// On how many days people come for the first time; at least 1.
    pub days: i64,
    /// 0 deals habits out by people's numbers, anything else at random.
    pub seed: u64,
}

impl Shop {
    /// The shop of `docs/analytics.md`, which has 120 people.
    pub const fn of_the_page() -> Self {
        Self {
            from: MONDAY,
            days: 10,
            seed: 0,
        }
    }

    /// What person number `person` does, each thing with its time, as events without a message id.
    pub fn journey(&self, person: u32) -> Vec<(Timestamp, Value)> {
        let habit = self.habit(person);
        let every = |n: i64| habit % n == 0;
        let channel = match habit % 3 {
            0 => "mail",
            1 => "search",
            _ => "social",
        };
        let start = self.from + (habit % self.days.max(1)) * DAY + 10 * HOUR + (habit % 60) * MINUTE;
        let page = |path: &str| json!({"type": "page", "name": "Page", "context": {"page": {"path": path}}});
        let mut first = page("/");
        first["context"]["campaign"] = json!({ "source": channel });
        let mut events = vec![(start, first)];
        let mut track = |after: i64, name: &str, properties: Value| {
            let event = json!({"type": "track", "event": name, "properties": properties});
            events.push((start + after, event));
        };
        if every(2) {
            track(MINUTE, "Product Viewed", json!({"sku": "A"}));
        }
        if every(4) {
            track(2 * MINUTE, "Product Added", json!({"sku": "A"}));
        }
        if every(8) {
            let products = json!([{"sku": "A", "quantity": 1}, {"sku": "B", "quantity": 2}]);
            let revenue = 10 * (1 + habit % 3);
            let properties = json!({"revenue": revenue, "products": products});
            track(3 * MINUTE, "Order Completed", properties);
        }
        if every(4) {
            let plan = if every(8) { "pro" } else { "free" };
            let user = format!("user-{person}");
            let identify = json!({"type": "identify", "userId": user, "traits": {"plan": plan}});
            events.push((start + 150_000, identify));
        }
        if every(6) {
            events.push((start + 2 * HOUR, page("/account")));
        }
        if every(5) {
            events.push((start + DAY, page("/offers")));
        }
        if every(10) {
            events.push((start + 7 * DAY, page("/offers")));
        }
        for (_, event) in &mut events {
            event["anonymousId"] = json!(format!("anon-{person}"));
        }
        let timed = |(at, event)| (Timestamp::clamped_from_millis(at), event);
        events.into_iter().map(timed).collect()
    }

    /// A number by which a person's habits go: its own, or one at random (splitmix64).
    fn habit(&self, person: u32) -> i64 {
        if self.seed == 0 {
            return i64::from(person);
        }
        let mut mixed = self
            .seed
            .wrapping_add(u64::from(person).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        i64::try_from((mixed ^ (mixed >> 31)) >> 2).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shop_is_a_function_of_its_seed() {
        let shop = |seed| Shop {
            seed,
            ..Shop::of_the_page()
        };
        let events = |seed| {
            (0..100)
                .flat_map(|person| shop(seed).journey(person))
                .collect::<Vec<_>>()
        };
        assert_eq!(events(7), events(7));
        assert_ne!(events(7), events(8));
    }
}
