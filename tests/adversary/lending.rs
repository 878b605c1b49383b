//! A PI mutex lends the rank of a boost to no task for longer than a moment.

use crate::scene::{Act, BOTH, Scene};

// Each act has a run of its own: a crowd would end its boost early.

fn same() -> Scene {
    Scene::new("lending on the same CPU", BOTH, vec![Act::plain("lend-same")])
}

fn other() -> Scene {
    Scene::new("lending to another CPU", BOTH, vec![Act::plain("lend-other")])
}

fn chain() -> Scene {
    Scene::new("lending through a chain", BOTH, vec![Act::plain("lend-chain")])
}

scene!("lending on the same CPU", same, a_hog_keeps_its_cpu_while_a_rank_is_lent_on_it,
    a_spinning_owner_on_the_same_cpu_is_lent_no_rank => "lend-same",
);

scene!("lending to another CPU", other, a_hog_keeps_its_cpu_while_a_rank_is_lent_elsewhere,
    a_spinning_owner_on_another_cpu_is_lent_no_rank => "lend-other",
);

scene!("lending through a chain", chain, a_hog_keeps_its_cpu_while_a_rank_is_lent_through_a_chain,
    the_owner_at_the_end_of_a_chain_is_lent_no_rank => "lend-chain",
);
