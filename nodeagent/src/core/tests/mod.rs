mod config;
mod life;
mod node;
mod random;
