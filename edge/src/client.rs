//! A headless player.
