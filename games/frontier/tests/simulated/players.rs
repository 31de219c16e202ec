//! What a player of the demo world does: walks about, into walls as well, takes what ore it comes by, lays some of it down again.

use std::f32::consts::TAU;
use std::time::Duration;

use frontier::{Drop, Gather, Gathered, PickUp, REACH_M, action, kind};
use marchland_region_core::ItemId;
use prost::Message;
use rand::RngExt;
use simulation::studio::{Action, Code, Deeds, Moment, Move, Player, Reply};

/// How long one direction is kept.
const WALK: Duration = Duration::from_millis(1_500);

/// Someone without a plan.
#[derive(Default)]
pub(crate) struct Wanderer {
    bag: Vec<u64>,
    heading: f32,
    until: Duration,
}

impl Player for Wanderer {
    fn act(&mut self, moment: &mut Moment<'_>) -> Deeds {
        if moment.now >= self.until {
            self.heading = moment.random.random_range(0.0..TAU);
            self.until = moment.now + WALK;
        }
        let own = moment.view.own();
        let in_reach = |[x, _, z]: [f32; 3]| (x - own.x).hypot(z - own.z) < REACH_M;
        let at_ore = moment.view.others().any(|(_, other)| other.kind == kind::ORE && in_reach(other.position()));
        if at_ore {
            // There is more to take here.
            self.until = moment.now + WALK;
        }
        let speed = if at_ore && moment.random.random_bool(0.9) { 0.0 } else { 1.0 };
        let (z, x) = self.heading.sin_cos();
        let yaw = (self.heading / TAU * 256.0) as u32 & 255;
        let action = match moment.random.random_range(0..20) {
            0..=4 if at_ore => Some((action::GATHER, Gather {}.encode_to_vec())),
            5 | 6 => self.bag.pop().map(|item| (action::DROP, Drop { item }.encode_to_vec())),
            7 => Some((action::PICK_UP, PickUp {}.encode_to_vec())),
            _ => None,
        };
        let action = action.map(|(code, body)| Action { code, body: body.into() });
        Deeds { step: Move { x: x * speed, z: z * speed, yaw }, actions: action.into_iter().collect() }
    }

    fn told(&mut self, code: Option<u32>, reply: &Reply) -> Result<Vec<ItemId>, String> {
        if reply.code != Code::Ok as u32 || !matches!(code, Some(action::GATHER | action::PICK_UP)) {
            return Ok(Vec::new());
        }
        let item = Gathered::decode(&*reply.body).map_err(|error| error.to_string())?.item;
        self.bag.push(item);
        // Only what comes out of the ground is new to the world.
        Ok(if code == Some(action::GATHER) { vec![ItemId(item)] } else { Vec::new() })
    }
}
