//! Checks what pulses take from the hog of a CPU, if there is a bound on that.

use super::Watched;
use stalld::task::{Cpu, Nanos};

const SECOND: Nanos = Nanos::from_secs(1);

/// The time from the begin of a pulse to its end, from which stalld counts.
const SLOP: Nanos = Nanos::from_millis(100);

impl Watched {
    /// Notes that a pulse of a task begins. If the task has moved in this turn, stalld can't know
    /// which hog pays for it.
    pub fn note_pulse(&mut self, index: usize) {
        let life = self.world.lives[index];
        let cpu = if life.moved_in == self.world.turn { life.judged.cpu } else { life.cpu };
        self.boosts.iter_mut().filter(|boost| boost.id == life.id).for_each(|boost| boost.cpu = cpu);
        self.world.cores[cpu.0 as usize].pulsed_at = self.world.now;
        self.world.lives[index].judged.pulse = Some((self.world.now, cpu, life.cpu_time));
    }

    /// Charges a pulse that ends now to its CPU, and checks the last second there.
    pub fn charge(&mut self, index: usize) {
        let life = self.world.lives[index];
        let pulse = self.world.lives[index].judged.pulse.take();
        // If the kernel refuses a restore, stalld promises nothing about the loss.
        let Some((begun, cpu, before)) = pulse.filter(|_| !life.judged.kept) else { return };
        let Some(max) = self.orders.rules.max_loss else { return };
        let core = &mut self.world.cores[cpu.0 as usize];
        core.pulses.retain(|&(at, _)| begun < at + SECOND);
        core.pulses.push((begun, life.cpu_time - before + max.switching));
        let sum = core.pulses.iter().fold(Nanos::ZERO, |sum, &(_, cost)| sum + cost);
        if sum > max.per_second {
            let what = format!("pulses have taken {sum:?} of a second from the hog of CPU {cpu}");
            self.break_promise(&life, &what);
        }
    }

    /// Returns until when the bound may delay a boost on a CPU.
    pub fn delayed_by_losses(&self, cpu: Cpu) -> Nanos {
        match self.orders.rules.max_loss {
            Some(_) => self.world.cores[cpu.0 as usize].pulsed_at + SECOND + SLOP,
            None => Nanos::ZERO,
        }
    }
}
