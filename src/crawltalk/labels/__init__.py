"""What people say of replies: ideal answers, rankings and thumbs, in one store."""
