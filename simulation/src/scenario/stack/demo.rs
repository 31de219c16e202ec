//! The demo world as the simulation plays it: players who walk to ore, gather it, drop some and pick it up again.

use std::f32::consts::TAU;
use std::time::Duration;

use frontier::{Drop, Frontier, Gather, Gathered, PickUp, action, kind, map_parameters};
use marchland_types::ItemId;
use prost::Message;
use rand::RngExt;

use crate::studio::{Action, Code, Deeds, Moment, Move, Player, Reply, Served, Studio};

/// The demo world.
pub(super) struct Demo;

impl Studio for Demo {
    const NAME: &'static str = "demo";
    const PURPOSE: &'static str = "the demo world";
    type Game = Frontier;
    type Player = Forager;

    fn served() -> anyhow::Result<Served<Frontier>> {
        Ok(Served::new(Frontier::new()?, map_parameters()))
    }

    fn player(_number: u64) -> Forager {
        Forager::default()
    }
}

/// Gathers ore.
#[derive(Default)]
pub(super) struct Forager {
    bag: Vec<u64>,
    /// A way that is taken until some time, and when that is.
    detour: Option<(f32, Duration)>,
    stood_at: ([f32; 2], Option<Duration>),
}

impl Player for Forager {
    fn act(&mut self, moment: &mut Moment<'_>) -> Deeds {
        let (heading, at_ore) = self.heading(moment);
        let (z, x) = heading.sin_cos();
        let speed = if at_ore { 0.0 } else { 1.0 };
        let step = Move { x: x * speed, z: z * speed, yaw: (heading.rem_euclid(TAU) / TAU * 256.0) as u32 & 255 };
        Deeds { step, actions: self.next_action(moment, at_ore).into_iter().collect() }
    }

    fn told(&mut self, code: Option<u32>, reply: &Reply) -> Result<Vec<ItemId>, String> {
        if code != Some(action::GATHER) || reply.code != Code::Ok as u32 {
            return Ok(Vec::new());
        }
        let gathered = Gathered::decode(&*reply.body).map_err(|error| error.to_string())?;
        self.bag.push(gathered.item);
        Ok(vec![ItemId(gathered.item)])
    }
}

impl Forager {
    /// Where to walk, and whether ore is within reach. Whoever stands still without meaning to takes another way for a while.
    fn heading(&mut self, moment: &mut Moment<'_>) -> (f32, bool) {
        let own = moment.view.own();
        let ore = moment.view.others().filter(|(_, other)| other.kind == kind::ORE);
        let nearest = ore
            .map(|(_, other)| {
                let [x, _, z] = other.position();
                (x - own.x, z - own.z)
            })
            .min_by(|a, b| a.0.hypot(a.1).total_cmp(&b.0.hypot(b.1)));
        if let Some((dx, dz)) = nearest
            && dx.hypot(dz) < 1.5
        {
            return (dz.atan2(dx), true);
        }
        if let Some((heading, until)) = self.detour
            && moment.now < until
        {
            return (heading, false);
        }
        let (place, since) = self.stood_at;
        if (own.x - place[0]).hypot(own.z - place[1]) > 0.3 || since.is_none() {
            self.stood_at = ([own.x, own.z], Some(moment.now));
        } else if since.is_some_and(|since| moment.now - since > Duration::from_millis(600)) || nearest.is_none() {
            let heading = moment.random.random_range(0.0..TAU);
            self.detour = Some((heading, moment.now + Duration::from_millis(1_200)));
            self.stood_at = ([own.x, own.z], None);
            return (heading, false);
        }
        (nearest.map_or(0.0, |(dx, dz)| dz.atan2(dx)), false)
    }

    fn next_action(&mut self, moment: &mut Moment<'_>, at_ore: bool) -> Option<Action> {
        let random = &mut *moment.random;
        if at_ore && random.random_bool(0.2) {
            return Some(Action { code: action::GATHER, body: Gather {}.encode_to_vec().into() });
        }
        if random.random_bool(0.03)
            && let Some(item) = self.bag.pop()
        {
            return Some(Action { code: action::DROP, body: Drop { item }.encode_to_vec().into() });
        }
        random.random_bool(0.03).then(|| Action { code: action::PICK_UP, body: PickUp {}.encode_to_vec().into() })
    }
}
