"""From outcomes to text and JSON; acts on nothing."""
