"""The text of `rlexp --help`."""

HELP = """\
rlexp: run a reinforcement-learning experiment from a configuration.

  rlexp                                           PPO on CartPole-v1, trained and evaluated
  rlexp algorithm=dqn env=acrobot seed=3          other parts: GROUP=CHOICE
  rlexp algorithm.gamma=0.98 network.hidden=[128,128] total_env_steps=100_000
                                                  other values: GROUP.KEY=VALUE
  rlexp experiment=dqn_cartpole                   a tuned preset
  rlexp env.id=MountainCarContinuous-v0           any Gymnasium environment
  rlexp -m seed=0,1,2                             a sweep: every combination of the values, one after the other
  rlexp -m seed=0,1,2 hydra/launcher=joblib hydra.launcher.n_jobs=2
                                                  side by side, each in a process of its own (n_jobs: one a core)
  rlexp --cfg job                                 show the composed configuration, run nothing

  The same command again continues an interrupted run and says that a finished one is finished.
  restart=true makes a new run beside it; extend=RUN total_env_steps=N goes on from a finished one.

  rlexp-check ...                                 the same command line, checked and not run
  rlexp-evaluate RUN --episodes 200               evaluate a saved run
  rlexp-play RUN [--record FILE.mp4]              watch its policy, or make a video
  rlexp-status outputs                            which runs are finished, running, failed, killed or waiting
  rlexp-sync RUN...                               make the W&B runs anew from the rows

groups (list the choices with an unknown one, such as env=?):
  algorithm env experience estimator exploration network optimizer evaluation logger execution debug experiment

flags:
  -m, --multirun       several values per key, separated by commas
  --config-dir DIR     your own conf/ folder, which may add and override (also RLEXP_CONF_DIR)
  --cfg job, --info    show what would be composed, from where

exit codes: 0 finished, 2 configuration, 3 environment, 4 non-finite numbers, 5 storage, 6 device, memory or space,
  75 stopped by a scheduler and saved, 130 stopped by Ctrl-C and saved
"""
