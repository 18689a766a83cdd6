"""Connect four: a game in which a policy first imitates players and then surpasses them by playing against itself.

As AlphaGo did with Go (Silver et al. 2016), on a board that is small enough for an exact solver to say which moves
are right. Both trainings go through `crawltalk.train.loop.fit`.
"""
