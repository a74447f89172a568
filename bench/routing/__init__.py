"""The routing bench: a world of providers, traffic, peers' strategies and a bound that nobody can beat.

    api          the contract between the harness and a policy
    world        the truth of a scenario: offers, conditions by 10 s, noise
    traffic      who asks for what, and when
    scenarios    name -> world
    sim          drives one policy through one world on a virtual clock
    baselines    what peers do
    bound        the least that any policy could have cost, knowing the future

J is dollars spent plus penalties; regret is J over the bound. Noise is fixed per (request, endpoint), so all
comparisons are paired and runs can be repeated to the bit.
"""
