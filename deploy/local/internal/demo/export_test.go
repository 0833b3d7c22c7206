package demo

// Rows are the rows of the table, without what /proc tells.
var Rows = rows
