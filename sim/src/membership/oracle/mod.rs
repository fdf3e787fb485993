//! What must hold of every mesh after its quiet time, one invariant a file.
//!
//! * `ghosts`: nobody has a member who is gone.
//! * `known`: everybody has everybody who is there.
//! * `records`: everybody has what each said last.
//! * `believed`: nobody ever believed a forged or an older item.
//! * `demand`: everybody's demand map is near the truth.
//! * `alive`: nobody was taken for dead without a reason.
//! * `trusted`: nobody honest was found a liar.
//! * `bounds`: packets, rates and tables kept their bounds.

mod alive;
mod believed;
mod bounds;
mod demand;
mod ghosts;
mod known;
mod records;
mod trusted;

use super::world::World;

/// What all of them find wrong.
pub(super) fn violations(world: &World) -> Vec<String> {
    let found = [
        ("ghosts", ghosts::check(world)),
        ("known", known::check(world)),
        ("records", records::check(world)),
        ("believed", believed::check(world)),
        ("alive", alive::check(world)),
        ("trusted", trusted::check(world)),
        ("demand", demand::check(world)),
        ("bounds", bounds::check(world)),
    ];
    let told = |(name, found): (&str, Vec<String>)| -> Vec<String> {
        let more = found.len().saturating_sub(TOLD_MAX);
        let rest = (more > 0).then(|| format!("{name}: and {more} more"));
        found.iter().take(TOLD_MAX).map(|what| format!("{name}: {what}")).chain(rest).collect()
    };
    found.into_iter().flat_map(told).collect()
}

/// Violations of one kind that are told.
const TOLD_MAX: usize = 5;
