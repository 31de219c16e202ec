//! What goes wrong, one file each. To add one: a file here, and its name in the list of [`faults!`](self):
//! among the first ones if any sweep may draw it, else behind the semicolon.
//!
//! A fault counts only when something observable came of it. Of most that is known when they begin; a disk that will fail at the next
//! write is only `Begun::Armed`, and tells at its end whether there was one.

mod bridge;
mod clock_drift;
mod clock_jump;
mod edge_loss;
mod failing_disk;
mod folder_loss;
mod full_disk;
mod isolate;
mod kill;
mod late_ticks;
mod majority_power_loss;
mod one_way;
mod pass_on;
mod pause;
mod persist_now;
mod power_loss;
mod ring;
mod site_power_loss;
mod slow_disk;
mod slow_link;
mod slow_network;
mod split;

use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use crate::machine::MachineName;
use crate::world::World;

pub use bridge::Bridge;
pub use clock_drift::ClockDrift;
pub use clock_jump::ClockJump;
pub use edge_loss::EdgeLoss;
pub use failing_disk::{FailingDisk, FailsOn};
pub use folder_loss::FolderLoss;
pub use full_disk::FullDisk;
pub use isolate::Isolate;
pub use kill::Kill;
pub use late_ticks::LateTicks;
pub use majority_power_loss::MajorityPowerLoss;
pub use one_way::OneWay;
pub use pass_on::PassOn;
pub use pause::Pause;
pub use persist_now::PersistNow;
pub use power_loss::PowerLoss;
pub use ring::Ring;
pub use site_power_loss::SitePowerLoss;
pub use slow_disk::SlowDisk;
pub use slow_link::SlowLink;
pub use slow_network::SlowNetwork;
pub use split::{EdgesSide, Split};

/// Ends a fault. Says whether anything came of it; of one that began with an effect, always `true`.
pub(crate) type End = Box<dyn FnOnce(&mut World) -> bool>;

/// What came of a fault when it began.
pub(crate) enum Begun {
    /// It can not befall this machine now: it is down already, or nothing is there to fail.
    Nothing,
    /// It took effect, and lasts until this is called.
    Effect(End),
    /// It lies in wait; whether there was an effect is known at its end.
    Armed(End),
}

impl Begun {
    /// It took effect; `end` undoes it.
    fn effect(end: impl FnOnce(&mut World) + 'static) -> Self {
        Self::Effect(Box::new(move |world| {
            end(world);
            true
        }))
    }

    fn armed(end: impl FnOnce(&mut World) -> bool + 'static) -> Self {
        Self::Armed(Box::new(end))
    }
}

/// Which machines a fault can befall, for whoever draws a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Befalls {
    /// A node that hosts replicas.
    Node,
    /// A node that only terminates players.
    Edge,
    /// Either.
    Any,
    /// The target does not matter.
    Everything,
}

/// Something that can go wrong with machines or the network, for a while.
pub(crate) trait FaultKind: Sized {
    /// As it stands in reports and on command lines.
    const NAME: &'static str;
    /// Whom.
    const BEFALLS: Befalls;
    /// Whether it is only over when all faults are: it has no duration of its own.
    const UNTIL_QUIET: bool = false;

    /// One of its forms, at random.
    fn draw(random: &mut Pcg64Mcg) -> Self;

    /// Begins it.
    fn begin(&self, world: &mut World, target: &MachineName) -> Begun;
}

macro_rules! faults {
    ($($drawn:ident),* $(,)?; $($planned:ident),* $(,)?) => {
        faults!(@all [$($drawn),*] $($drawn,)* $($planned,)*);
    };
    (@all [$($drawn:ident),*] $($kind:ident,)*) => {
        /// Every fault.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Fault {
            $(#[doc = concat!("See [`", stringify!($kind), "`].")] $kind($kind),)*
        }

        impl Fault {
            /// Names of all kinds that sweeps draw from, as in [`Fault::name`].
            pub const KINDS: &'static [&'static str] = &[$($drawn::NAME),*];

            /// A fault of the kind with this name, in one of its forms.
            #[must_use]
            pub fn draw(kind: &str, random: &mut Pcg64Mcg) -> Option<Self> {
                match kind {
                    $(name if name == $kind::NAME => Some(Self::$kind($kind::draw(random))),)*
                    _ => None,
                }
            }

            /// As it stands in reports.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(Self::$kind(_) => $kind::NAME,)* }
            }

            /// Whom it can befall.
            #[must_use]
            pub fn befalls(&self) -> Befalls {
                match self { $(Self::$kind(_) => $kind::BEFALLS,)* }
            }

            /// Whether it is only over when all faults are, however long the plan says.
            #[must_use]
            pub fn lasts_until_quiet(&self) -> bool {
                match self { $(Self::$kind(_) => $kind::UNTIL_QUIET,)* }
            }

            pub(crate) fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
                match self { $(Self::$kind(kind) => kind.begin(world, target),)* }
            }
        }
    };
}

faults!(
    PowerLoss,
    MajorityPowerLoss,
    SitePowerLoss,
    Kill,
    EdgeLoss,
    Pause,
    LateTicks,
    Isolate,
    Split,
    OneWay,
    Ring,
    Bridge,
    SlowNetwork,
    SlowLink,
    ClockJump,
    ClockDrift,
    SlowDisk,
    FailingDisk,
    FullDisk,
    PassOn,
    PersistNow;
    FolderLoss,
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn every_kind_is_drawn_by_its_name_and_survives_a_plan_file() {
        let mut random = Seed(1).stream("faults");
        for kind in Fault::KINDS {
            let fault = Fault::draw(kind, &mut random).unwrap_or_else(|| panic!("{kind} is not drawn"));
            assert_eq!(fault.name(), *kind);
            let text = serde_json::to_string(&fault).unwrap();
            assert_eq!(serde_json::from_str::<Fault>(&text).unwrap(), fault);
        }
        let names: std::collections::BTreeSet<_> = Fault::KINDS.iter().collect();
        assert_eq!(names.len(), Fault::KINDS.len());
        assert_eq!(Fault::draw("rain", &mut random), None);
    }
}
