package heartbeats

// BeatOf is what decides in a heartbeat.
var BeatOf = beatOf
