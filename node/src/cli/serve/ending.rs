//! Ctrl-C, and the system's request to end: the first lets running answers finish, the second ends at once.

use tokio::sync::watch;

/// Whether the program was asked to end.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Ending(watch::Receiver<bool>);

impl Ending {
    /// Listens from now on.
    pub(in crate::cli) fn listen() -> Self {
        let (sender, asked) = watch::channel(false);
        tokio::spawn(async move {
            let mut signals = Signals::new();
            signals.next().await;
            sender.send_replace(true);
            note!(
                "meshwright: finishing the answers that are being given; press Ctrl-C again to end at once"
            );
            signals.next().await;
            std::process::exit(130);
        });
        Self(asked)
    }

    /// Returns once it was.
    pub(in crate::cli) async fn asked(&self) {
        // Who listens lives as long as the program.
        let _ = self.0.clone().wait_for(|asked| *asked).await;
    }
}

/// What asks a program to end.
struct Signals {
    #[cfg(unix)]
    terminate: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    fn new() -> Self {
        Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok(),
        }
    }

    async fn next(&mut self) {
        let interrupt = async {
            // Where the system refuses to tell, it ends the program itself.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        #[cfg(unix)]
        if let Some(terminate) = &mut self.terminate {
            tokio::select! {
                biased;
                () = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
        interrupt.await;
    }
}
